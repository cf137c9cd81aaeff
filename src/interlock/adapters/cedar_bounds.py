"""How large a policy may be: measured before Cedar sees it, since what is nested too deeply ends the whole process.

Cedar parses, checks and prints by functions that call themselves, on the thread's own stack; Python's reading of its
JSON does as well. At 8 MB of stack some 900 nested brackets are a segmentation fault, and 500 `||` in a row are too
deep for Python. Checking against the schema takes time by operators and elements, for each action and kind of asker,
and nobody else in this process is answered meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from interlock.core.errors import Invalid

POLICY_CHARACTERS_MAX = 128 * 1024
POLICIES_MAX = 5_000
ANNOTATIONS_MAX = 20
NESTING_MAX = 50
"""Brackets within brackets; a tenth of what a thread with 8 MB of stack bears, and it bears it with 1 MB."""

DEPTH_MAX = 200
"""How deep the tree of one policy may be: operators one after another, and one within the other."""

OPERATORS_MAX = 1_000
"""Operators of one policy wherever they stand, `a.b` and `a[b]` among them."""

ELEMENTS_MAX = 5_000
"""Elements of the sets in one policy."""

SET_OPERATORS_MAX = 100_000
SET_ELEMENTS_MAX = 200_000
"""In all policies together."""

_FIX = "Split the policy in two, or compare with a set: [...].contains(...), containsAny([...])."
_TOKEN = re.compile(
    r"""//[^\n\r]*|"(?:\\.|[^"\\])*"|[A-Za-z_][A-Za-z0-9_]*|\|\||&&|[=!<>]=|[-+*!<>.,@()\[\]{}]""", re.DOTALL
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_OPERATORS = frozenset(
    {"||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "!"}
    | {"in", "like", "has", "is", "if", "when", "unless"}  # conditions count one after another, as if && stood there
)


@dataclass
class _Group:
    """What stands between two brackets, so far: its current element, and the deepest of those before."""

    operators: int = 0
    members: int = 0
    members_most: int = 0
    within: int = 0
    deepest: int = 0

    @property
    def depth(self) -> int:
        return max(self.deepest, self.operators + self.members_most + self.within)

    def next_element(self) -> None:
        self.deepest = self.depth
        self.operators = self.members = self.members_most = self.within = 0

    def operator(self) -> None:
        self.operators += 1
        self.members = 0

    def member(self) -> None:
        self.members += 1
        self.members_most = max(self.members, self.members_most)


@dataclass
class Size:
    """One policy in numbers. Its tree in Cedar is not deeper than `depth`, to which every bracket counts as well."""

    characters: int
    annotations: int = 0
    operators: int = 0
    elements: int = 0
    nesting: int = 0
    depth: int = 0
    _open: list[_Group] = field(default_factory=lambda: [_Group()])

    @classmethod
    def of(cls, text: str) -> Size:
        """Measure a policy's text; one that does not parse has a size as well."""
        size = cls(len(text))
        if size.characters <= POLICY_CHARACTERS_MAX:
            for token in _TOKEN.finditer(text):
                size._take(token.group())
        size.depth = sum(group.depth for group in size._open)
        return size

    def _take(self, word: str) -> None:
        group = self._open[-1]
        if word in _OPENING:
            if word == "[":
                self._member(group)
            self._open.append(_Group())
            self.nesting = max(self.nesting, len(self._open) - 1)
        elif word in _CLOSING:
            if len(self._open) > 1:
                self._open.pop()
                self._open[-1].within = max(self._open[-1].within, group.depth + 1)
        elif word == ",":
            self.elements += 1
            group.next_element()
        elif word == ".":
            self._member(group)
        elif word == "@":
            self.annotations += 1
        elif word in _OPERATORS:
            self.operators += 1
            group.operator()

    def _member(self, group: _Group) -> None:
        self.operators += 1
        group.member()

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is over a bound, and how to mend it."""
        if self.characters > POLICY_CHARACTERS_MAX:
            yield f"the policy is over {POLICY_CHARACTERS_MAX:,} characters", _FIX
        if self.annotations > ANNOTATIONS_MAX:
            yield f"it has {self.annotations} annotations, and {ANNOTATIONS_MAX} are the most", "Remove some."
        if self.nesting > NESTING_MAX:
            fix = "Take out brackets that change nothing, or split the policy in two."
            yield f"its brackets are nested over {NESTING_MAX} deep", fix
        if self.depth > DEPTH_MAX:
            yield f"it is too deep: {self.depth} operators hang on each other, and {DEPTH_MAX} are the most", _FIX
        if self.operators > OPERATORS_MAX:
            yield f"it has {self.operators:,} operators, and {OPERATORS_MAX:,} are the most", _FIX
        if self.elements > ELEMENTS_MAX:
            fix = "What is generated belongs into facts, not texts; otherwise split the policy in two."
            yield f"it lists {self.elements:,} elements, and {ELEMENTS_MAX:,} are the most", fix


def require_bounded_set(sizes: Iterable[Size]) -> None:
    """Raises Invalid when all policies together are more than can be checked while others wait."""
    kept = list(sizes)
    for what, count, most in (
        ("policies", len(kept), POLICIES_MAX),
        ("operators in its policies", sum(size.operators for size in kept), SET_OPERATORS_MAX),
        ("elements in its policies", sum(size.elements for size in kept), SET_ELEMENTS_MAX),
    ):
        if count > most:
            msg = f"the set has {count:,} {what}, and {most:,} are the most"
            raise Invalid(msg, code="policy.size", fix="Remove policies; generated ones belong into facts, not texts.")

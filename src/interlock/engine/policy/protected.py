"""Which targets a list of patterns covers, on resolved identities and on every other name a target is known by.

A pattern is `KIND:PATTERN`; upper and lower case do not matter, since a file system or a name server may not tell them
apart and protecting too much is the safer mistake.

* `*` in KIND and `*`, `?` in PATTERN stand for any characters and any one character. There are no other wildcards.
* A PATTERN that begins with `/` is a path: `*` and `?` stay within one component, `**` stands for any number of
  components. It covers what it names and everything beneath. It also covers every folder above it, because to change
  such a folder (remove, rename, mount over, clean) is to change what lies in it. With kind `file` it covers paths of
  any kind of target: a socket, a volume's folder, a device.
* `unit:postgresql` also covers `postgresql.service` and the instances `postgresql@15-main.service`.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from interlock.core.plan import Plan, Step, Target

RESOLVED_FOR_SECONDS = 1.0
"""How long resolved symbolic links are believed."""

REMEMBERED_MAX = 4096

_KIND_IN_NAME = re.compile(r"[a-z][a-z0-9_-]*:(?=.)")


@dataclass(frozen=True)
class Match:
    """A target of a step and the pattern that covers it."""

    step: int
    target: Target
    pattern: str


class Patterns:
    """A compiled list of patterns.

    Indexed by kind and by first path component, because most targets meet no pattern at all and every decision looks.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.texts = tuple(patterns)
        self._names: dict[str | None, list[_Names]] = {}
        self._paths: dict[str | None, list[_Paths]] = {}
        for text in self.texts:
            kind, _, rest = text.partition(":")
            if rest.startswith("/"):
                path = _path_pattern(text, kind, rest)
                self._paths.setdefault(path.root, []).append(path)
            else:
                key = None if _has_wildcard(kind) else kind
                self._names.setdefault(key, []).append(_Names(text=text, kind=_regex(kind), name=_regex(rest)))
        # The same few targets are asked about again and again.
        self._remembered = lru_cache(maxsize=REMEMBERED_MAX)(self._match)
        # By kind, whatever would cover a name of that kind; patterns for every kind take part in each.
        anywhere = self._names.get(None, [])
        self._any_name = {
            kind: re.compile("|".join({each.name.pattern: None for each in (*found, *anywhere)}))
            for kind, found in self._names.items()
        }

    def __bool__(self) -> bool:
        """Whether anything is listed at all."""
        return bool(self.texts)

    def match(self, target: Target, *, recursive: bool = False, above: bool = True) -> str | None:
        """A pattern that covers a target that is about to change, or None.

        `recursive` says that the change may reach everything beneath the target. `above` False leaves out the folders
        above what is covered: to list such a folder, say, is not to read what lies in it.
        """
        return self._remembered(target, recursive, above) if self.texts else None

    def _match(self, target: Target, recursive: bool, above: bool) -> str | None:  # noqa: FBT001 - for the cache
        for kind, name in _names(target):
            found = self._match_name(kind, name)
            if found is None and name.startswith("/"):
                found = self._match_path(kind, name, recursive=recursive, above=above)
            if found is not None:
                return found
        return None

    def _match_name(self, kind: str, name: str) -> str | None:
        known = self._any_name.get(kind) or self._any_name.get(None)
        if known is None or not known.match(name):
            return None
        likely = (*self._names.get(kind, ()), *self._names.get(None, ()))
        return next((each.text for each in likely if each.kind.match(kind) and each.name.match(name)), None)

    def _match_path(self, kind: str, name: str, *, recursive: bool, above: bool) -> str | None:
        path = _components(name)
        roots = (path[0], None) if path else tuple(self._paths)
        for pattern in (pattern for root in roots for pattern in self._paths.get(root, ())):
            if not (pattern.any_kind or pattern.kind.match(kind)):
                continue
            if pattern.covers(path) or (above and pattern.is_above(path, recursive=recursive)):
                return pattern.text
        return None


def protected_targets(plan: Plan, patterns: Patterns) -> tuple[Match, ...]:
    """Every target that a plan's changing steps, or their undo steps, touch and that a pattern covers."""
    return tuple(
        Match(step=index, target=target, pattern=pattern)
        for index, whole in enumerate(plan.steps)
        for step in with_undo(whole)
        if step.changes or step.opaque
        for target in step.targets
        if (pattern := patterns.match(target, recursive=is_recursive(step))) is not None
    )


def with_undo(step: Step) -> Iterator[Step]:
    """A step and the steps that would take it back: what may come to be performed once it is permitted."""
    following: Step | None = step
    while following is not None:
        yield following
        following = following.undo


def is_recursive(step: Step) -> bool:
    """Whether a step may change everything beneath its targets: by its own word, or because nobody knows."""
    if step.opaque:
        return True
    for operation in step.operations:  # noqa: SIM110 - every decision comes by here, and `any` takes thrice as long
        if operation.endswith("recursive"):
            return True
    return False


def resolve_paths(patterns: Iterable[str], realpath: Callable[[str], str]) -> tuple[str, ...]:
    """The same patterns, and beside each path pattern what it becomes when symbolic links are followed.

    Targets are real paths; a protected folder may be declared by a path that leads through a link.
    """
    found: list[str] = []
    for text in patterns:
        found.append(text)
        kind, _, rest = text.partition(":")
        if not rest.startswith("/"):
            continue
        parts = rest.split("/")
        fixed = next((index for index, part in enumerate(parts) if _has_wildcard(part)), len(parts))
        real = realpath("/".join(parts[:fixed]) or "/")
        resolved = ":".join((kind, "/".join((real.rstrip("/"), *parts[fixed:])) or "/"))
        if resolved not in found:
            found.append(resolved)
    return tuple(found)


class ResolvedPatterns:
    """Patterns whose links are followed again once the last look is older than `RESOLVED_FOR_SECONDS`."""

    def __init__(self, patterns: Iterable[str], realpath: Callable[[str], str], monotonic: Callable[[], float]) -> None:
        self._declared = tuple(patterns)
        self._realpath = realpath
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._patterns = Patterns(resolve_paths(self._declared, realpath))

    def current(self) -> Patterns:
        """The compiled patterns as links stand now."""
        now = self._monotonic()
        if self._declared and now - self._looked_at >= RESOLVED_FOR_SECONDS:
            texts = resolve_paths(self._declared, self._realpath)
            if texts != self._patterns.texts:
                self._patterns = Patterns(texts)
            self._looked_at = now
        return self._patterns


@dataclass(frozen=True)
class _Names:
    """A pattern on names: one regular expression over the whole name."""

    text: str
    kind: re.Pattern[str]
    name: re.Pattern[str]


@dataclass(frozen=True)
class _Paths:
    """A pattern on paths, component by component; None stands for `**`.

    `root` is the first component, None when any first component may match.
    """

    text: str
    kind: re.Pattern[str]
    any_kind: bool
    root: str | None
    parts: tuple[re.Pattern[str] | None, ...]

    def covers(self, path: list[str]) -> bool:
        return _matches((*self.parts, None), path)

    def is_above(self, path: list[str], *, recursive: bool) -> bool:
        fixed = next((index for index, part in enumerate(self.parts) if part is None), len(self.parts))
        if not all(part is None or part.match(name) for part, name in zip(self.parts[:fixed], path, strict=False)):
            return False
        # Beyond `**` a folder may or may not lead to something that is covered: doubt counts where the change recurses.
        return len(path) <= fixed or (recursive and fixed < len(self.parts))


def _path_pattern(text: str, kind: str, rest: str) -> _Paths:
    parts = _components(_fold(rest))
    while parts and parts[-1] == "**":
        parts.pop()
    return _Paths(
        text=text,
        kind=_regex(kind),
        any_kind=kind == "file",
        root=None if not parts or _has_wildcard(parts[0]) else parts[0],
        parts=tuple(None if part == "**" else _regex(part) for part in parts),
    )


def _regex(glob: str) -> re.Pattern[str]:
    return re.compile(translate(_fold(glob).replace("[", "[[]")))


def _fold(text: str) -> str:
    """One spelling for all that differ only in case or in how accents are composed."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())


def _components(path: str) -> list[str]:
    return [part for part in posixpath.normpath(path).split("/") if part]


def _has_wildcard(part: str) -> bool:
    return "*" in part or "?" in part


def _names(target: Target) -> Iterator[tuple[str, str]]:
    """Every (kind, name) under which a target is looked up."""
    for name in {target.id, *target.names}:
        folded = _fold(name)
        yield target.kind, folded
        if ":" in folded and _KIND_IN_NAME.match(folded):
            kind, _, rest = folded.partition(":")
            yield kind, rest
        if target.kind == "container" and folded.startswith("/"):
            # Docker's own API gives names with a slash in front.
            yield target.kind, folded[1:]
        if target.kind == "unit":
            stem = folded.rpartition(".")[0] or folded
            if stem != folded:
                yield target.kind, stem
            if "@" in stem:
                yield target.kind, stem.partition("@")[0]


def _matches(parts: tuple[re.Pattern[str] | None, ...], path: list[str]) -> bool:
    """Whether components match, by the classical search that only ever goes back to the last `**`."""
    index = position = mark = 0
    star = -1
    while position < len(path):
        part = parts[index] if index < len(parts) else None
        if index < len(parts) and part is None:
            star, mark = index, position
            index += 1
        elif part is not None and part.match(path[position]):
            index += 1
            position += 1
        elif star >= 0:
            mark += 1
            index, position = star + 1, mark
        else:
            return False
    return all(part is None for part in parts[index:])

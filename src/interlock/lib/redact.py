"""Finds what looks like a secret in text, and blots it out of streams."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

BLOT = "[redacted]"
LINE_BYTES_MAX = 8 * 1024

# Each pattern names its secret; the group `secret` is what is blotted, the rest stays readable. What is searched may be
# hostile: no pattern may begin a long match at many places of one long word. Every match holds at least one of `marks`:
# most texts hold none, and to know that takes a hundredth of the time. Where case does not count they are
# looked for in folded text, and none of them has an `i`: a pattern's `i` also matches letters that do not fold to it.
_PATTERNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "private key",
        ("-----BEGIN ",),
        r"(?P<secret>-----BEGIN (?:[A-Z0-9 ]+ )?PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*KEY-----|\Z))",
    ),
    ("AWS access key", ("AKIA", "ASIA"), r"\b(?P<secret>(?:AKIA|ASIA)[0-9A-Z]{16})\b"),
    ("Interlock token", ("ilk_",), r"\b(?P<secret>ilk_[a-z2-7]{12}_[A-Za-z0-9_-]{43,})"),
    (
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"\b(?P<secret>(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}))\b",
    ),
    ("GitLab token", ("glpat-",), r"\b(?P<secret>glpat-[A-Za-z0-9_-]{20,})\b"),
    ("Slack token", ("xox",), r"\b(?P<secret>xox[abprs]-[A-Za-z0-9-]{10,})\b"),
    ("API key", ("sk-",), r"\b(?P<secret>sk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,})\b"),
    ("Telegram bot token", (":AA",), r"\b(?P<secret>\d{8,10}:AA[A-Za-z0-9_-]{33})\b"),
    (
        "JSON web token",
        ("eyJ",),
        r"(?<![A-Za-z0-9_-])(?P<secret>eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})\b",
    ),
    (
        "password in a URL",
        ("://",),
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]*:(?P<secret>(?!\[redacted\])[^\s/@]{1,200})@",
    ),
    (
        "authorization header",
        ("author",),
        r"(?i)\bauthorization:\s*(?:bearer|basic|token)\s+(?P<secret>(?!\[redacted\])[^\s\"']{6,})",
    ),
    (
        "named secret",
        ("passw", "secret", "key", "token"),
        (
            r"(?i)(?:password|passwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|private[_-]?key)"
            r"[\"']?\s*[=:]\s*[\"']?(?P<secret>(?!\*+|\[redacted\]|\$\{|true\b|false\b|null\b|none\b)[^\s\"',;&]{6,})"
        ),
    ),
)


class _Pattern(NamedTuple):
    """One kind of secret. Without `marks` every text is searched; where they are `folded`, case does not count."""

    name: str
    marks: tuple[str, ...]
    expression: re.Pattern[str]
    folded: bool


class Redactor:
    """Knows the built-in patterns and a project's own."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._own = [_pattern("declared secret", (), f"(?P<secret>{pattern})") for pattern in extra]
        self._built_in = [_pattern(*each) for each in _PATTERNS]

    def find(self, text: str) -> str | None:
        """The name of the first kind of secret that `text` seems to hold, or None."""
        return next((pattern.name for pattern in self._possible(text) if pattern.expression.search(text)), None)

    def redact(self, text: str) -> str:
        """`text` with every secret blotted out."""
        # What is blotted leaves no mark behind, nor makes one: what was not possible before it is not afterwards.
        for pattern in self._possible(text):
            text = pattern.expression.sub(_blot, text)
        return text

    def _possible(self, text: str) -> list[_Pattern]:
        """Those that may match. Most texts are a few words, so that this asks as little as it can."""
        folded = text.casefold()
        found = []
        for pattern in self._built_in:
            searched = folded if pattern.folded else text
            for mark in pattern.marks:
                if mark in searched:
                    found.append(pattern)
                    break
        return found + self._own if self._own else found


def _pattern(name: str, marks: tuple[str, ...], written: str) -> _Pattern:
    expression = re.compile(written, re.DOTALL)
    return _Pattern(name, marks, expression, folded=bool(expression.flags & re.IGNORECASE))


def _blot(match: re.Match[str]) -> str:
    start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
    whole = match.group(0)
    return f"{whole[:start]}{BLOT}{whole[end:]}"


class StreamRedactor:
    """Redacts bytes as they come: whole lines at once, so that no secret hides on the edge of two pieces.

    A line longer than `LINE_BYTES_MAX` is cut there, and a private key block is held back until its end line.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._inside_key = False

    def feed(self, piece: bytes) -> str:
        """Take bytes, give back the text that is safe to show by now."""
        self._held += piece
        cut = self._held.rfind(b"\n") + 1
        if cut == 0 and len(self._held) > LINE_BYTES_MAX:
            cut = len(self._held)
        whole, self._held = self._held[:cut], self._held[cut:]
        return self._clean(whole)

    def finish(self) -> str:
        """Give back the rest."""
        whole, self._held = self._held, b""
        return self._clean(whole)

    def _clean(self, raw: bytes) -> str:
        if not raw:
            return ""
        shown = []
        plain: list[str] = []
        for line in raw.decode("utf-8", "replace").splitlines(keepends=True):
            if self._inside_key:
                self._inside_key = "-----END " not in line
            elif "-----BEGIN " in line and "PRIVATE KEY-----" in line:
                shown.append(self._redactor.redact("".join(plain)))
                plain = []
                shown.append(f"{BLOT}\n")
                self._inside_key = "-----END " not in line
            else:
                plain.append(line)
        shown.append(self._redactor.redact("".join(plain)))
        return "".join(shown)

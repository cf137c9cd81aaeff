"""Trace ids: which request, wherever it came from, a thing belongs to; W3C Trace Context, level 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from interlock.lib.random_ids import random_hex

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
_WRITTEN_CHARACTERS = 55
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: `trace_id` is the whole, `span_id` this part, `parent_id` the part that this one belongs to.

    All are lower-case hexadecimal, of 16 and 8 bytes. `sampled`: whoever began it records it.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """As it is written in a header or a variable."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> Trace:
        """A new part of this part."""
        return Trace(self.trace_id, random_hex(8), self.span_id, self.sampled)


TRACE: ContextVar[Trace | None] = ContextVar("interlock_trace", default=None)
"""Where whatever runs now belongs; tasks and copied contexts inherit it."""


def begin_trace() -> Trace:
    """A trace of our own."""
    return Trace(random_hex(16), random_hex(8))


def parse_traceparent(text: str | None) -> Trace | None:
    """Where the sender stands; None for what is no `traceparent`, which then counts as not sent (section 3.2.2.5)."""
    found = _TRACEPARENT.match(text) if text is not None else None
    if text is None or found is None or found["version"] == "ff":
        return None
    rest = text[_WRITTEN_CHARACTERS:]
    if rest and (found["version"] == "00" or not rest.startswith("-")):
        return None
    if found["trace"] == _NO_TRACE or found["span"] == _NO_SPAN:
        return None
    return Trace(found["trace"], found["span"], None, bool(int(found["flags"], 16) & 1))


def join_trace(text: str | None) -> Trace:
    """From here on this task belongs to the sender's trace, or to a new one."""
    trace = parse_traceparent(text) or begin_trace()
    TRACE.set(trace)
    return trace


Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a trace that is over. Times are nanoseconds since 1970; `error` is a code, None when all went well."""

    name: str
    trace: Trace
    started_at: int
    ended_at: int
    attributes: Mapping[str, Attribute]
    error: str | None


class Tracer(Protocol):
    """Takes spans that are over, and does with them what it likes: it never fails and never blocks."""

    @property
    def enabled(self) -> bool:
        """Whether anybody wants them."""
        ...

    def finished(self, span: Span) -> None:
        """One is over."""
        ...

    def close(self) -> None:
        """No more will come; returns within seconds."""
        ...


class Untraced:
    """Nobody wants spans; trace ids are followed all the same."""

    enabled = False

    def finished(self, span: Span) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

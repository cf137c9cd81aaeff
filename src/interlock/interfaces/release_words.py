"""Puts what a release says of itself into the reader's language: its timeline, its steps, its plan.

The resident process writes these sentences in English, with names and numbers in them. Here stands each of them as a
frame with `{names}`; what fits no frame stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from interlock.interfaces.messages import is_english, translated

FRAMES: tuple[str, ...] = (
    # what happens
    "from {stable} to {candidate}, asked for by {who}",
    "first version: {candidate}, asked for by {who}",
    "all users are to get {candidate}: {why}",
    "all users are to get {candidate}",
    "step {step} of {steps}, shadow of {percent} %: {why}",
    "step {step} of {steps}, shadow of {percent} %",
    "step {step} of {steps}, {percent} % of users are to get it: {why}",
    "step {step} of {steps}, {percent} % of users are to get it",
    "all users have {candidate}, and it was watched for {duration}",
    "all users have {candidate}; the judge still looks",
    "all users have {candidate}",
    "all users get {stable} again",
    "users have {stable} again",
    "users have {stable}",
    "users get {stable} again",
    "users keep {stable}",
    "{candidate} never reached anybody",
    "nobody is answered any more",
    "goes back: {why}",
    "is ended, before anybody had it: {why}",
    "is ended: {why}",
    "paused: {why}",
    "goes on: {why}",
    "promoted by a person: {why}",
    "cannot go back yet: {why}",
    "frozen where it is, because there is no way back: {why}",
    "no verdict after {seconds} s: {why}",
    "nobody comes: no request for {seconds} s; it waits, and decides nothing",
    # why
    "the candidate is healthy",
    "rolled back by hand",
    "aborted by hand",
    "paused by hand",
    "resumed by hand",
    "promoted by hand",
    # steps
    "{candidate} is built, started and probed",
    "{step} of {steps}: {what}",
    "nobody; {percent} % of safe requests are copied, {goes_on}",
    "nobody; {percent} % of safe requests are copied",
    "{percent} % of users, {goes_on}",
    "{percent} % of users",
    "all users",
    "{pairs} answers compared, and agreed",
    "the judge certifies it, not before {duration}",
    "the judge certifies it",
    "after {duration} with requests",
    "watched for {duration} with requests",
    "watched for {duration}",
    "at most {duration}",
    # the plan
    "Go or no go",
    "Nothing runs yet: it is built, started and probed, and then all users get it.",
    "No steps: it is built, started and probed, and then all users get it at once.",
    "by itself, at once: all users get {stable} again",
    "{stable} stays running for {hours} h, ready to take over",
    "none: there is no version before; what goes wrong freezes it where it is",
    "errors and latency, both versions at the same time, every {duration}",
    "a good version is sent back with a probability of at most {percent} %",
    "a bad one is certified with at most {percent} %",
    "{errors} errors in a row, {probes} failed probes in a row",
    "at least {percent} % of answers, at {confidence} % confidence",
    "not compared: no shadow step",
    "none declared under `build`",
    "none declared",
    "each sample that was accepted is answered so, before anybody has it",
    "{path} answers {count} times in a row",
    "fewer than {times} times those of the version before",
    "at most {percent} %, or {harmless} ms, more at {quantiles}",
    "hard failures at once; how long it took stands in the report",
    "it waits for a person at a step's end",
    "it goes back at a step's end",
    "it goes on all the same at a step's end",
)

LABELS: tuple[str, ...] = (
    "from",
    "to",
    "step",
    "who gets it",
    "goes on when",
    "judge",
    "red lines",
    "no verdict",
    "way back",
    "agreement",
    "build, tests",
    "gates",
    "golden",
    "health",
    "errors",
    "latency",
    "detection",
)
"""What stands before a line of the plan, above a column of it, or in a row of the Go/No-Go table."""

LABEL_COLUMNS = 14
DEPTH_MAX = 3
"""How deep a sentence may stand in another one."""

_NAME = re.compile(r"\\\{(\w+)\\\}")
_BY = re.compile(r" \((?:person|agent|service):[^()]*\)$")


def release_in_words(text: str, depth: int = 0) -> str:
    """A sentence of a release, or a name in a table of one."""
    if is_english() or not text or depth > DEPTH_MAX:
        return text
    by = _BY.search(text)
    if by is not None:
        return release_in_words(text[: by.start()], depth) + by[0]
    if text in LABELS:
        return translated(text)
    for frame, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            inner = {name: release_in_words(value, depth + 1) for name, value in found.groupdict().items()}
            return translated(frame).format(**inner)
    return text


def plan_in_words(preview: str) -> str:
    """The text of a release's plan: labels, sentences, and the table of its steps."""
    if is_english():
        return preview
    return "\n".join(_line_in_words(line) for line in preview.split("\n"))


def _line_in_words(line: str) -> str:
    label, rest = line[:LABEL_COLUMNS].rstrip(), line[LABEL_COLUMNS:]
    if label in LABELS and line[LABEL_COLUMNS - 1 : LABEL_COLUMNS] == " " and "  " not in rest.strip():
        return _padded(translated(label), LABEL_COLUMNS) + release_in_words(rest)
    if not label:
        return line[:LABEL_COLUMNS] + release_in_words(rest)
    cells = re.split(r"( {2,})", line)
    if len(cells) == 1:
        return release_in_words(line)
    # A table: each cell keeps the room that it had, or takes what it needs.
    pairs = zip(cells[::2], [*cells[1::2], ""], strict=True)
    return "".join(_padded(release_in_words(cell), len(cell) + len(gap)) for cell, gap in pairs).rstrip()


def _padded(text: str, columns: int) -> str:
    from rich.cells import cell_len

    return text + " " * max(2, columns - cell_len(text))


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each frame as an expression: a name is one word, a duration a number with its unit, and the rest is sentences."""
    return tuple((frame, re.compile(_NAME.sub(_group, re.escape(frame)))) for frame in FRAMES)


def _group(name: re.Match[str]) -> str:
    if name[1] in {"why", "what", "goes_on", "quantiles"}:
        return f"(?P<{name[1]}>.+)"
    return rf"(?P<{name[1]}>[0-9.]+ \w+)" if name[1] == "duration" else rf"(?P<{name[1]}>\S+)"

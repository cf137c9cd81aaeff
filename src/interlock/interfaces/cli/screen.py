"""Draws for people: few shapes, few colours, as readable at 40 columns as at 200."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from interlock.interfaces.cli.terminal import visible
from interlock.interfaces.messages import say
from interlock.lib.clock import SystemClock

NARROW_COLUMNS = 72
"""Below this, what would be a row of a table becomes a few short lines."""

FIELDS_COLUMNS_MIN = 50
"""Below this a name stands above its value instead of before it."""

_PIPE_COLUMNS = 240
_STYLES = {
    "succeeded": "green",
    "ok": "green",
    "permit": "green",
    "running": "cyan",
    "queued": "cyan",
    "waiting": "yellow",
    "warning": "yellow",
    "needs_approval": "yellow",
    "stale": "yellow",
    "expired": "yellow",
    "advisory": "yellow",
    "medium": "yellow",
    "undone": "magenta",
    "unresolved": "bold red",
    "failed": "red",
    "denied": "red",
    "error": "red",
    "forbid": "red",
    "high": "bold red",
    "enforced": "green",
}


def styled(word: str, text: str | None = None) -> Text:
    """A word with a meaning of its own (a state, a risk, a level) in its colour."""
    return Text(text if text is not None else word, style=_STYLES.get(word, ""))


class Screen:
    """One stream. Without a terminal lines are not folded, so that `grep` finds what it looks for."""

    def __init__(self, stream: TextIO, *, colour: bool, width: int | None = None) -> None:
        terminal = stream.isatty()
        self._console = Console(
            file=stream,
            no_color=not colour,
            color_system="auto" if colour and terminal else None,
            width=width or (None if terminal else _PIPE_COLUMNS),
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )
        self._now = SystemClock().now()

    @property
    def narrow(self) -> bool:
        """Whether there is no room for columns."""
        return self._console.width < NARROW_COLUMNS

    @property
    def width(self) -> int:
        """In columns."""
        return self._console.width

    def line(self, *parts: Text | str, indent: int = 0) -> None:
        """One line of running text, folded under its own beginning."""
        text = Text.assemble(*(_clean(part) for part in parts))
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text, soft_wrap=False)

    def blank(self) -> None:
        """An empty line."""
        self._console.print()

    def heading(self, text: str) -> None:
        """What follows."""
        self._console.print(Text(text, style="bold"))

    def quiet(self, text: str, *, indent: int = 0) -> None:
        """What is good to know and easy to skip."""
        self.line(Text(text, style="dim"), indent=indent)

    def fields(self, pairs: Iterable[tuple[str, Text | str]], *, indent: int = 0) -> None:
        """Names and values; nothing is shown for an empty value."""
        shown = [(name, value) for name, value in pairs if str(value)]
        if not shown:
            return
        if self.width < FIELDS_COLUMNS_MIN:
            for name, value in shown:
                self.quiet(name, indent=indent)
                self.line(value, indent=indent + 2)
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for name, value in shown:
            grid.add_row(name, _clean(value))
        self._console.print(Padding(grid, (0, 0, 0, indent), expand=False))

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[Text | str]], *, indent: int = 0) -> None:
        """A table whose last column folds; where there is no room each row takes two lines."""
        cells = [[_clean(cell) for cell in row] for row in rows]
        if self.narrow:
            for row in cells:
                self.line(Text("  ").join(cell for cell in row[:-1] if cell.plain), indent=indent)
                self.line(row[-1], indent=indent + 2)
            return
        grid = Table.grid(padding=(0, 2))
        for index, _ in enumerate(columns):
            grid.add_column(no_wrap=index < len(columns) - 1, overflow="fold")
        if any(columns):
            grid.add_row(*(Text(column, style="dim") for column in columns))
        for row in cells:
            grid.add_row(*row)
        self._console.print(Padding(grid, (0, 0, 0, indent), expand=False))

    def block(self, text: str, *, indent: int = 2) -> None:
        """Text as it is, line by line; a unified diff in its colours."""
        for line in text.splitlines():
            self.line(Text(line, style=_style_of_diff(line)), indent=indent)

    def raw(self, text: str) -> None:
        """Text that will be read by a program or copied: nothing is folded."""
        self._console.print(Text(visible(text)), soft_wrap=True)

    def moment(self, text: str) -> str:
        """A time as people say it: how long ago today, otherwise the local date. `text` is RFC 3339."""
        moment = parse_time(text)
        if moment is None:
            return text
        seconds = (self._now - moment).total_seconds()
        ahead, seconds = seconds < 0, abs(seconds)
        for limit, size, past, future in (
            (90, 1, say("{n} s ago"), say("in {n} s")),
            (5400, 60, say("{n} min ago"), say("in {n} min")),
            (86400, 3600, say("{n} h ago"), say("in {n} h")),
        ):
            if seconds < limit:
                return (future if ahead else past).format(n=int(seconds // size))
        return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _clean(part: Text | str) -> Text:
    """What others wrote must not steer the reader's terminal. A styled text is ours, or was made from such a part."""
    if isinstance(part, str):
        return Text(visible(part))
    cleaned = visible(part.plain)
    return part if cleaned == part.plain else Text(cleaned, style=part.style)


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time, or None when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _style_of_diff(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "bold"
    if line.startswith("@@"):
        return "cyan"
    return {"+": "green", "-": "red"}.get(line[:1], "")

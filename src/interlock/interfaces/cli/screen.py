"""Draws for people: few shapes, few colours, as readable at 40 columns as at 200."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from interlock.interfaces.cli.terminal import visible, visible_line
from interlock.interfaces.messages import say
from interlock.lib.clock import SystemClock

NARROW_COLUMNS = 72
"""Below this, what would be a row of a table becomes a few short lines."""

FIELDS_COLUMNS_MIN = 50
"""Below this a name stands above its value instead of before it."""

HANGING_COLUMNS = 3
"""How much further in a line goes on that did not fit. It is odd and whatever begins is indented by an even number, so
that no long text looks like the line that would follow it."""

TAB_COLUMNS = 4

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
    return Text(visible_line(text if text is not None else word), style=_STYLES.get(word, ""))


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
        """One line of running text. What does not fit goes on further in, where nothing else begins."""
        self._print_hanging(Text.assemble(*(_clean(part) for part in parts)), indent)

    def blank(self) -> None:
        """An empty line."""
        self._console.print()

    def heading(self, text: str) -> None:
        """What follows; a word of ours."""
        self.line(Text(text, style="bold"))

    def quiet(self, text: str, *, indent: int = 0) -> None:
        """What is good to know and easy to skip."""
        self.line(Text(visible_line(text), style="dim"), indent=indent)

    def fields(self, pairs: Iterable[tuple[str, Text | str]], *, indent: int = 0) -> None:
        """Names and values; nothing is shown for an empty value."""
        shown = [(visible_line(name), value) for name, value in pairs if str(value)]
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
        self._print_grid(grid, indent)

    def rows(self, columns: Sequence[str], rows: Iterable[Sequence[Text | str]], *, indent: int = 0) -> None:
        """A table whose last column folds; where there is no room each row takes two lines."""
        cells = [[_clean(cell) for cell in row] for row in rows]
        if self.narrow or self._columns_before_last(cells) + indent > self.width // 2:
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
        self._print_grid(grid, indent)

    def block(self, text: str, *, indent: int = 2) -> None:
        """Text as it is, line by line and further in than anything that is ours; a unified diff in its colours."""
        for line in text.removesuffix("\n").split("\n"):
            shown = visible(line).expandtabs(TAB_COLUMNS)
            self._print_hanging(Text(shown, style=_style_of_diff(line)), max(indent, 1))

    def raw(self, text: str) -> None:
        """Text of ours, of many lines, that will be read by a program or copied: nothing is folded."""
        self._console.print(Text(visible(text)), soft_wrap=True)

    @staticmethod
    def _columns_before_last(cells: list[list[Text]]) -> int:
        """What all columns but the last take; nothing that somebody wrote may leave no room for that one."""
        widths = [max(cell.cell_len for cell in column) + 2 for column in zip(*cells, strict=True)]
        return sum(widths[:-1])

    def _print_grid(self, grid: Table, indent: int) -> None:
        """A grid fills its last column with blanks, which nobody wants in a file or a diff."""
        padded = Padding(grid, (0, 0, 0, indent), expand=False)
        if self._console.is_terminal:
            self._console.print(padded)
            return
        with self._console.capture() as captured:
            self._console.print(padded)
        for line in captured.get().splitlines():
            self._console.file.write(line.rstrip() + "\n")

    def _print_hanging(self, text: Text, indent: int) -> None:
        room = max(1, self.width - indent)
        lines = text.wrap(self._console, room, overflow="fold")
        if len(lines) > 1:
            lines = text.wrap(self._console, max(1, room - HANGING_COLUMNS), overflow="fold")
        for number, line in enumerate(lines):
            columns = indent + (HANGING_COLUMNS if number else 0)
            self._console.print(Padding(line, (0, 0, 0, columns), expand=False) if columns else line, soft_wrap=False)

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
        return self.local_time(moment)

    @staticmethod
    def local_time(moment: datetime) -> str:
        """Date and time where the reader is."""
        return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _clean(part: Text | str) -> Text:
    """What others wrote must not steer the reader's terminal. A styled text is ours, or was made from such a part."""
    if isinstance(part, str):
        return Text(visible_line(part))
    cleaned = visible_line(part.plain)
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

"""Draws lines over time as one SVG: panels below each other, light and dark, without scripts; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP = 860, 76, 24, 64
PANEL_HEIGHT, PANEL_GAP, BOTTOM = 130, 38, 44
POINTS_MAX = 1200
TICKS_WANTED = 4
CHARACTER_PIXELS = 7
LABEL_GAP_PIXELS = 8
_STYLE = """
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #3b4252; } .title { font-size: 15px; font-weight: 600; } .name { font-weight: 600; }
.quiet { fill: #7a8394; } .grid { stroke: #e3e6ec; stroke-width: 1; } .frame { stroke: #b8bfca; fill: none; }
.stable { stroke: #2f6fb3; } .candidate { stroke: #c4561a; } .other { stroke: #6b7280; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .thin { stroke-width: 1; opacity: .55; }
.limit { stroke: #b3261e; stroke-width: 1.2; stroke-dasharray: 5 4; } .event { stroke: #8b5cf6; stroke-dasharray: 2 3; }
.dot { stroke: none; } .dot.stable { fill: #2f6fb3; } .dot.candidate { fill: #c4561a; } .dot.other { fill: #6b7280; }
@media (prefers-color-scheme: dark) {
svg { background: #14171d; } text { fill: #d5dae3; } .quiet { fill: #8f98a8; } .grid { stroke: #272c36; }
.frame { stroke: #4a5262; } .stable { stroke: #6aa9ec; } .candidate { stroke: #f0935a; } .other { stroke: #a3abb9; }
.limit { stroke: #f2776e; } .event { stroke: #b79bfb; }
.dot.stable { fill: #6aa9ec; } .dot.candidate { fill: #f0935a; } .dot.other { fill: #a3abb9; }
}
"""


@dataclass(frozen=True)
class Line:
    """One curve: (seconds, value) in order of time. `kind`: stable, candidate or other. `steps`: it jumps."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    thin: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves that share a scale. `limit` is a line across, `least` the smallest upper end of the scale."""

    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    limit: float | None = None
    limit_label: str = ""
    least: float = 0.0
    below_zero: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at a moment."""

    seconds: float
    label: str


def draw(title: str, panels: Sequence[Panel], marks: Sequence[Mark], begin: float, end: float) -> str:
    """The whole picture; times are seconds since `begin` on the axis."""
    end = max(end, begin + 1.0)
    height = TOP + len(panels) * (PANEL_HEIGHT + PANEL_GAP) - PANEL_GAP + BOTTOM
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_text(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="24">{_text(title)}</text>',
    ]
    bottom = height - BOTTOM
    tops = [TOP + index * (PANEL_HEIGHT + PANEL_GAP) for index in range(len(panels))]
    for panel, top in zip(panels, tops, strict=True):
        parts += _panel(panel, top, begin, end)
    parts += _marks(marks, tops, begin, end)
    parts += _time_axis(bottom, begin, end)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: float, begin: float, end: float) -> list[str]:
    low, high, ticks = _scale(panel)

    def y(value: float) -> float:
        return top + PANEL_HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))

    parts = [f'<text class="name" x="{LEFT}" y="{top - 8:.1f}">{_text(panel.title)}</text>']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        text = f"{_number(tick)}{panel.unit}"
        parts.append(f'<text class="quiet" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_text(text)}</text>')
    parts.append(f'<rect class="frame" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL_HEIGHT}"/>')
    if panel.limit is not None and low <= panel.limit <= high:
        level = y(panel.limit)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text class="quiet" x="{LEFT + 6}" y="{level - 5:.1f}">{_text(panel.limit_label)}</text>')
    for line in panel.lines:
        points = [(_x(seconds, begin, end), y(value)) for seconds, value in _thinned(line.points)]
        if not points:
            continue
        thin = " thin" if line.thin else ""
        path = " ".join(_path(points, steps=line.steps))
        parts.append(f'<path class="line {line.kind}{thin}" d="{path}"/>')
        if len(points) == 1:
            parts.append(f'<circle class="dot {line.kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>')
    return [*parts, *_legend(panel.lines, top)]


def _legend(lines: Iterable[Line], top: float) -> list[str]:
    """At the right end of the panel's title."""
    parts, right = [], float(WIDTH - RIGHT)
    for line in reversed(list(lines)):
        text_width = 7 * len(line.label)
        x = right - text_width
        thin = " thin" if line.thin else ""
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{top - 8:.1f}">{_text(line.label)}</text>')
        parts.append(
            f'<line class="line {line.kind}{thin}" x1="{x - 22:.1f}" x2="{x - 6:.1f}" y1="{top - 12:.1f}"'
            f' y2="{top - 12:.1f}"/>'
        )
        right = x - 34
    return parts


def _marks(marks: Sequence[Mark], tops: Sequence[float], begin: float, end: float) -> list[str]:
    """Each a line through every panel, and not through what is written between them; a label where there is room."""
    parts: list[str] = []
    free = float("-inf")
    for mark in sorted(marks, key=lambda each: each.seconds):
        x = _x(mark.seconds, begin, end)
        pieces = [(top, top + PANEL_HEIGHT) for top in tops]
        width = CHARACTER_PIXELS * len(mark.label)
        at_end = x + width > WIDTH - RIGHT
        left = x - 4 - width if at_end else x + 4
        if left >= free:
            place = f'x="{x - 4 if at_end else x + 4:.1f}" y="{TOP - 26}" text-anchor="{"end" if at_end else "start"}"'
            parts.append(f'<text class="quiet" {place}>{_text(mark.label)}</text>')
            free = left + width + LABEL_GAP_PIXELS
            pieces.append((TOP - 34, TOP - 22))
        for top, bottom in pieces:
            parts.append(f'<line class="event" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
    return parts


def _time_axis(bottom: float, begin: float, end: float) -> list[str]:
    parts = []
    for tick in _round_steps(0.0, end - begin, 8):
        x = _x(begin + tick, begin, end)
        parts.append(f'<line class="frame" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>')
        parts.append(
            f'<text class="quiet" x="{x:.1f}" y="{bottom + 20:.1f}" text-anchor="middle">{_text(_clock(tick))}</text>'
        )
    return parts


def _scale(panel: Panel) -> tuple[float, float, list[float]]:
    values = [value for line in panel.lines for _, value in line.points if math.isfinite(value)]
    values += [panel.limit] if panel.limit is not None else []
    high = max([*values, panel.least, 1e-9])
    low = min([*values, 0.0]) if panel.below_zero else 0.0
    ticks = _round_steps(low, high, TICKS_WANTED)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else max(high - low, 1e-9)
    low = math.floor(low / step) * step
    high = math.ceil(high / step * (1 - 1e-12)) * step
    return low, max(high, low + step), _round_steps(low, max(high, low + step), TICKS_WANTED)


def _round_steps(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between both ends."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= wanted)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `POINTS_MAX`, the highest of each group, so that no peak is lost."""
    known = [point for point in points if math.isfinite(point[1])]
    if len(known) <= POINTS_MAX:
        return known
    size = math.ceil(len(known) / POINTS_MAX)
    return [max(known[at : at + size], key=lambda point: point[1]) for at in range(0, len(known), size)]


def _path(points: Sequence[tuple[float, float]], *, steps: bool) -> Iterable[str]:
    before: tuple[float, float] | None = None
    for x, y in points:
        if before is None:
            yield f"M{x:.1f} {y:.1f}"
        else:
            if steps:
                yield f"L{x:.1f} {before[1]:.1f}"
            yield f"L{x:.1f} {y:.1f}"
        before = (x, y)


def _x(seconds: float, begin: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(seconds, begin), end) - begin) / (end - begin)


def _clock(seconds: float) -> str:
    """`+90 s`, `+5 min`, `+2 h`."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"+{_number(seconds / size)} {unit}"
    return f"+{_number(seconds)} s"


def _number(value: float) -> str:
    return f"{value:.6g}"


def _text(text: str) -> str:
    """Text for an element or an attribute, without what XML does not know."""
    return escape("".join(each for each in text if each >= " "), {'"': "&quot;"})

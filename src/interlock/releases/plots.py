"""Which curves tell the story of a release: errors, latency, evidence and shares, from what was seen; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from interlock.core.model import JsonObject
from interlock.releases.chart import Line, Mark, Panel, draw
from interlock.releases.model import Release

SMOOTH_SECONDS = 5.0
"""Error rates are those of so long: a second with three requests says nothing."""
MARKED = {
    "shadow": "shadow",
    "canary": "step",
    "watching": "all users",
    "going_back": "goes back",
    "routed_back": "all back",
    "paused": "paused",
    "frozen": "frozen",
}


def plot(release: Release, ticks: Sequence[JsonObject], lines: Sequence[Mapping[str, object]]) -> str:
    """One SVG. `lines` are those of the timeline, with `at` as a datetime."""
    moments = [seconds_of(tick) for tick in ticks]
    begin = min([release.created_at.timestamp(), *moments])
    ends = [*moments, release.state_at.timestamp()]
    if release.closed_at is not None:
        ends.append(release.closed_at.timestamp())
    title = f"{release.name}, release {release.number}: {release.stable or 'nothing'} → {release.candidate}"
    panels = (
        Panel("Errors", _errors(release, ticks), " %", least=1.0),
        Panel(
            "Latency",
            (*_latency(release, ticks, "p95"), *_latency(release, ticks, "p50", thin=True)),
            " ms",
            least=1.0,
        ),
        Panel(
            "Evidence against the candidate, log10",
            (Line("strongest measure", "other", _series(ticks, "log10_evidence")),),
            limit=0.0,
            limit_label="from here on it goes back",
            least=1.0,
            below_zero=True,
        ),
        Panel(
            "Users with the candidate",
            (Line("share", "candidate", _series(ticks, "percent"), steps=True),),
            " %",
            least=100.0,
        ),
    )
    return draw(title, panels, _marks(lines), begin, max(ends))


def seconds_of(tick: JsonObject) -> float:
    """When a tick was, since 1970."""
    return _float(tick.get("at_seconds"))


def arm_of(tick: JsonObject, name: str | None) -> JsonObject:
    """What a tick says of a version: n, errors and latencies."""
    arms = tick.get("arms")
    found = arms.get(name) if isinstance(arms, dict) and name is not None else None
    return found if isinstance(found, dict) else {}


def _marks(lines: Sequence[Mapping[str, object]]) -> list[Mark]:
    return [
        Mark(line["at"].timestamp(), MARKED[str(line["word"])])
        for line in lines
        if isinstance(line["at"], datetime) and line["word"] in MARKED
    ]


def _errors(release: Release, ticks: Sequence[JsonObject]) -> tuple[Line, ...]:
    return tuple(Line(name, kind, _error_percent(ticks, name)) for name, kind in _arms(release))


def _arms(release: Release) -> list[tuple[str, str]]:
    """The names of both versions, and how they are drawn."""
    stable = [(release.stable, "stable")] if release.stable is not None else []
    return [*stable, (release.candidate, "candidate")]


def _error_percent(ticks: Sequence[JsonObject], name: str) -> list[tuple[float, float]]:
    """Over a moving window."""
    found, window = [], list[tuple[float, float, float]]()
    for tick in ticks:
        arm, now = arm_of(tick, name), seconds_of(tick)
        window.append((now, _float(arm.get("n")), _float(arm.get("errors"))))
        window = [each for each in window if each[0] > now - SMOOTH_SECONDS]
        total = sum(each[1] for each in window)
        if total:
            found.append((now, 100 * sum(each[2] for each in window) / total))
    return found


def _latency(release: Release, ticks: Sequence[JsonObject], level: str, *, thin: bool = False) -> tuple[Line, ...]:
    return tuple(
        Line(
            f"{name} {level.upper()}",
            kind,
            [
                (seconds_of(each), 1000 * _float(arm_of(each, name)[level]))
                for each in ticks
                if level in arm_of(each, name)
            ],
            thin=thin,
        )
        for name, kind in _arms(release)
    )


def _series(ticks: Sequence[JsonObject], name: str) -> list[tuple[float, float]]:
    return [(seconds_of(tick), _float(tick[name])) for tick in ticks if isinstance(tick.get(name), int | float)]


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

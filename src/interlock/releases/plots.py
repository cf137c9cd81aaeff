"""Which curves tell the story of a release: errors, latency, evidence and shares, from what was seen; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from interlock.core.model import JsonObject
from interlock.core.workload import CanaryStep
from interlock.releases.chart import Line, Mark, Panel, draw
from interlock.releases.model import Release

SMOOTH_SECONDS = 5.0
"""Error rates are those of so long: a second with three requests says nothing."""
MARKED = {
    "shadow": "shadow",
    "watching": "all",
    "routed_back": "back",
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
            (
                Line(
                    "share",
                    "candidate",
                    _shares(release, lines, begin, max(ends)) or _series(ticks, "percent"),
                    steps=True,
                ),
            ),
            " %",
            least=100.0,
        ),
    )
    return draw(title, panels, _marks(release, lines), begin, max(ends))


def seconds_of(tick: JsonObject) -> float:
    """When a tick was, since 1970."""
    return _float(tick.get("at_seconds"))


def arm_of(tick: JsonObject, name: str | None) -> JsonObject:
    """What a tick says of a version: n, errors and latencies."""
    arms = tick.get("arms")
    found = arms.get(name) if isinstance(arms, dict) and name is not None else None
    return found if isinstance(found, dict) else {}


def _marks(release: Release, lines: Sequence[Mapping[str, object]]) -> list[Mark]:
    """Each says what it is: the share that users got of the candidate then, or what became of it."""
    found = []
    for line in lines:
        moment, word, percent = line["at"], str(line["word"]), _share_of(release, line)
        label = f"{percent:g} %" if word == "canary" and percent is not None else MARKED.get(word)
        if isinstance(moment, datetime) and label is not None:
            found.append(Mark(moment.timestamp(), label))
    return found


def _shares(
    release: Release, lines: Sequence[Mapping[str, object]], begin: float, end: float
) -> list[tuple[float, float]]:
    """Which part of the users had the candidate, by what was routed and when; empty where no line of it says so."""
    found = [
        (moment.timestamp(), percent)
        for line in lines
        if isinstance(moment := line["at"], datetime) and (percent := _share_of(release, line)) is not None
    ]
    return [(begin, 0.0), *found, (end, found[-1][1])] if found else []


def _share_of(release: Release, line: Mapping[str, object]) -> float | None:
    """Which part of the users had the candidate from this line on, in percent; None where it changes nothing."""
    word, data, steps = line["word"], line.get("data"), release.settings.steps
    if word in {"shadow", "routed_back"}:
        return 0.0
    if word == "watching":
        return 100.0
    place = data.get("step") if isinstance(data, dict) and word == "canary" else None
    step = steps[place] if isinstance(place, int) and 0 <= place < len(steps) else None
    return step.weight_percent if isinstance(step, CanaryStep) else None


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

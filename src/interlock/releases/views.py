"""What can be read about releases: where each stands, its timeline as it grows, both versions, and its report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field, JsonValue

from interlock.core.actor import Actor
from interlock.core.errors import NotFound
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Discloses
from interlock.core.view import View
from interlock.engine.shapes import json_row
from interlock.engine.signals import set_within
from interlock.lib.clock import Clock, rfc3339
from interlock.releases.live import Live, LiveReleases
from interlock.releases.model import STOPPED, Release, percent_of, waiting_words
from interlock.releases.plan_text import criteria as wanted_criteria
from interlock.releases.plan_text import step_text
from interlock.releases.report import Material, Totals, criteria, report, totals
from interlock.releases.store import SHOWN_MAX, ReleaseStore

WAIT_SECONDS_MAX = 25
WAIT_LOOK_SECONDS = 0.25
NUMBER_MAX = 2**53
DIFFERENCES_MAX = 100


@dataclass(frozen=True)
class ReleaseDesk:
    """What these views read from. `gather` brings together all that a report is made from; `files` are its files.

    `shares` says which part of the users, in percent, has the candidate at the proxy; None where that is not known.
    """

    store: ReleaseStore
    live: LiveReleases
    clock: Clock
    gather: Callable[[Release], Awaitable[Material]]
    files: Callable[[Release], list[Path]]
    shares: Callable[[Release], Awaitable[float | None]]

    async def one(self, workload: str | None, number: int | None) -> Release:
        """By its number, or the newest one of a workload. Raises NotFound."""
        if number is not None:
            found = await self.store.get(number)
            if workload is None or workload == found.name:
                return found
            msg = f"release {number} is of {found.name}"
            raise NotFound(msg, code="release.unknown", fix=f"interlock release status {found.name}")
        newest = await self.store.newest(workload, 1)
        if not newest:
            msg = f"{workload} was never released" if workload is not None else "nothing was released yet"
            raise NotFound(msg, code="release.unknown", fix="interlock release status")
        return newest[0]

    async def seen(self, release: Release) -> JsonObject:
        """The same, with the share that the candidate has at the proxy, whatever was planned."""
        shown, percent = self.shown(release), await self.shares(release)
        return shown if percent is None else {**shown, "percent": percent}

    def shown(self, release: Release) -> JsonObject:
        """Where it stands, for programs and people."""
        live, step = self.live.find(release.number), release.current
        steps = release.settings.steps
        place = (
            f"{release.step + 1} of {len(steps)}: {step_text(step, release.workload.comparison)}"
            if step is not None
            else ""
        )
        if "waits" in release.told and release.settled != release.epoch:
            place = f"waits, and is not in force yet: {place or waiting_words(release)}"
        judgement = live.judgement if live is not None else None
        return {
            "number": release.number,
            "workload": release.name,
            "state": release.state,
            "over": release.over,
            "stable": release.stable,
            "candidate": release.candidate,
            "identities": {**release.identities},
            "step": release.step,
            "steps": [step_text(each, release.workload.comparison) for each in steps],
            "step_words": place or waiting_words(release),
            "settled": release.settled == release.epoch,
            "percent": percent_of(release),
            "watched_seconds": round(release.watched_seconds, 1),
            "judge_words": "" if live is None or release.over else self._said(live),
            "verdict": judgement.verdict if judgement is not None else None,
            "seconds_to_go": judgement.seconds_to_go if judgement is not None else None,
            "reason": release.reason,
            "cause": release.cause,
            "evidence": release.evidence,
            "irreversible": release.settings.irreversible,
            "started_by": release.started_by,
            "run": release.run,
            "created_at": rfc3339(release.created_at),
            "state_at": rfc3339(release.state_at),
            "closed_at": rfc3339(release.closed_at) if release.closed_at is not None else None,
            "warm_until": rfc3339(release.warm_until) if release.warm_until is not None else None,
        }

    def _said(self, live: Live) -> str:
        """The judge's words, or that nobody watches: they would be of another time."""
        why = live.unwatched(self.clock.monotonic())
        return live.words if why is None else f"nobody watches it: {why}"


class ReleasesArgs(Frozen):
    """All of them, or those of a workload, or one by its number; of one workload or release with its timeline."""

    workload: str | None = Field(default=None, max_length=63)
    release: int | None = Field(default=None, ge=1, le=NUMBER_MAX)
    limit: int = Field(default=20, ge=1, le=SHOWN_MAX)


class TimelineArgs(Frozen):
    """The lines behind `after`; where there are none yet, the answer comes when there are, or after `wait_seconds`."""

    release: int = Field(ge=1, le=NUMBER_MAX)
    after: int = Field(default=0, ge=0, le=NUMBER_MAX)
    wait_seconds: int = Field(default=0, ge=0, le=WAIT_SECONDS_MAX)


class OneArgs(Frozen):
    """A workload: its newest release, or the one of this number."""

    workload: str = Field(max_length=63)
    release: int | None = Field(default=None, ge=1, le=NUMBER_MAX)


class _OfReleases(View):
    """Reads from the desk."""

    discloses: ClassVar[Discloses] = "content"

    def __init__(self, desk: ReleaseDesk) -> None:
        self.desk = desk


class ReleasesView(_OfReleases):
    """Where each stands."""

    name: ClassVar[str] = "releases"
    summary: ClassVar[str] = "Releases: which version comes to which share of the users, what the judge says, and why."
    Args: ClassVar[type[Frozen]] = ReleasesArgs

    async def read(self, actor: Actor, args: ReleasesArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound for a number that is none."""
        desk = self.desk
        if args.release is not None:
            found = [await desk.one(args.workload, args.release)]
        else:
            found = await desk.store.newest(args.workload, args.limit)
        newest = {each.name: each.number for each in reversed(found)}
        shown: list[JsonValue] = [
            await desk.seen(each) if newest[each.name] == each.number else desk.shown(each) for each in found
        ]
        answer: JsonObject = {"releases": shown}
        if found and (args.release is not None or args.workload is not None):
            lines = await desk.store.timeline(found[0].number)
            answer["timeline"] = [json_row(line) for line in lines]
            live = desk.live.find(found[0].number)
            judgement = live.judgement if live is not None and not found[0].over else None
            answer["judgement"] = judgement.model_dump(mode="json") if judgement is not None else None
            wanted = wanted_criteria(found[0].workload)
            answer["criteria"] = [{"name": name, "words": words} for name, words in wanted]
        return answer


class TimelineView(_OfReleases):
    """What happens, as it happens."""

    name: ClassVar[str] = "release_timeline"
    summary: ClassVar[str] = "What happened to a release since a line of its timeline, at once or when it happens."
    Args: ClassVar[type[Frozen]] = TimelineArgs

    async def read(self, actor: Actor, args: TimelineArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound."""
        desk, number = self.desk, args.release
        live = desk.live.find(number)
        changed = live.changed if live is not None else 0
        end = desk.clock.monotonic() + args.wait_seconds
        while True:
            release = await desk.store.get(number)
            lines = await desk.store.timeline(number, args.after)
            live = desk.live.find(number)
            rests = release.over or release.state in STOPPED
            left = end - desk.clock.monotonic()
            if lines or rests or left <= 0 or (live is not None and live.changed != changed):
                break
            if live is not None:
                await set_within(live.told, min(left, WAIT_LOOK_SECONDS))
            else:
                await desk.live.any_moved(min(left, WAIT_LOOK_SECONDS))
        shown: list[JsonValue] = [json_row(line) for line in lines]
        return {"release": await desk.seen(release), "lines": shown}


class CompareView(_OfReleases):
    """Beside each other."""

    name: ClassVar[str] = "release_compare"
    summary: ClassVar[str] = "Both versions of a release: requests, errors, latency, and in what their answers differ."
    Args: ClassVar[type[Frozen]] = OneArgs

    async def read(self, actor: Actor, args: OneArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound."""
        release = await self.desk.one(args.workload, args.release)
        material = await self.desk.gather(release)
        names = [name for name in (release.stable, release.candidate) if name is not None]
        arms: list[JsonValue] = [_totals(totals(material.ticks, name)) for name in names]
        found: list[JsonValue] = [dict(each._asdict()) for each in criteria(material)]
        differences: list[JsonValue] = [*material.differences.splitlines()[:DIFFERENCES_MAX]]
        return {"release": self.desk.shown(release), "arms": arms, "criteria": found, "differences": differences}


class ReportView(_OfReleases):
    """All of it, written down."""

    name: ClassVar[str] = "release_report"
    summary: ClassVar[str] = "The report of a release as Markdown: what was seen, when, with which evidence."
    Args: ClassVar[type[Frozen]] = OneArgs

    async def read(self, actor: Actor, args: OneArgs) -> JsonObject:  # noqa: ARG002
        """Raises NotFound."""
        release = await self.desk.one(args.workload, args.release)
        text = report(await self.desk.gather(release))
        files: list[JsonValue] = [str(path) for path in self.desk.files(release)]
        return {"release": self.desk.shown(release), "text": text, "files": files}


def _totals(found: Totals) -> JsonObject:
    levels = {"p50": found.p50, "p95": found.p95, "p99": found.p99}
    rate = f"{found.errors / found.requests * 100:.2f} %" if found.requests else None
    shown = {level: f"{value * 1000:.1f} ms" if value is not None else None for level, value in levels.items()}
    return {"name": found.name, "requests": found.requests, "errors": found.errors, "error_rate": rate, **shown}

"""A release goes on only while somebody watches it: what a failing watch saw last is no reason to go on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from interlock.core.judgement import Judgement
from interlock.core.workload import CanaryStep, ReleaseSettings, ServiceWorkload, Source, Traffic
from interlock.releases.effects import Effect
from interlock.releases.live import PROVEN_SECONDS, UNWATCHED_SECONDS, Live, LiveReleases
from interlock.releases.machine import watched
from interlock.releases.model import Release, Seen
from interlock.releases.rollout import Rollout, _seen
from interlock.releases.watcher import Watcher

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RELEASE = Release(
    number=7,
    name="web",
    state="canary",
    stable="v1",
    candidate="v2",
    workload=ServiceWorkload(
        command=("/srv/web",),
        source=Source(folder="/srv/{version}"),
        traffic=Traffic(listen="127.0.0.1:8080"),
        release=ReleaseSettings(steps=(CanaryStep(weight_percent=5, until="go"),)),
    ),
    identities={},
    salt="r1",
    step=0,
    epoch=1,
    settled=1,
    watched_seconds=20.0,
    looked_at=NOW,
    started_by="person:alice",
    run=12,
    created_at=NOW,
    state_at=NOW,
)
GO = Judgement(
    at_seconds=1.0,
    verdict="go",
    summary="certified",
    measures=(),
    seconds_to_go=0.0,
    silent_seconds=0.0,
    breaches=(),
    notes=(),
)


class _Clock:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW


def test_no_time_counts_while_nobody_looks() -> None:
    assert watched(RELEASE, 5.0, 5.0, attended=False) == 20.0
    assert watched(RELEASE, 5.0, 5.0, attended=True) == 25.0


def test_a_watch_that_begins_is_none_and_no_fault() -> None:
    live = Live()
    assert (live.attended(0.0), live.unwatched(0.0)) == (False, None)
    live.attend(1.0, begun_at=0.0)
    assert (live.attended(2.0), live.unwatched(2.0)) == (True, None)


def test_a_watcher_that_hangs_watches_no_more() -> None:
    live = Live()
    live.attend(1.0, begun_at=0.0)
    later = 1.5 + UNWATCHED_SECONDS
    assert not live.attended(later)
    assert "said nothing" in str(live.unwatched(later))


def test_a_watch_that_fails_again_and_again_watches_never() -> None:
    live = Live()
    for begun_at in range(0, 40, 4):
        live.leave("it failed")
        live.attend(begun_at + 3.0, begun_at=float(begun_at))
        assert (live.attended(begun_at + 3.0), live.unwatched(begun_at + 3.0)) == (False, "it failed")
    live.attend(40.0 + PROVEN_SECONDS, begun_at=40.0)
    assert live.attended(41.0 + PROVEN_SECONDS)


@pytest.mark.parametrize(("attended", "verdict"), [(True, "go"), (False, "not_yet")])
def test_go_counts_only_while_somebody_looks(*, attended: bool, verdict: str) -> None:
    live = Live(judgement=GO)
    assert _seen(RELEASE, live, Effect("done"), Seen(), None, None, attended=attended).verdict == verdict
    live.judgement = GO.model_copy(update={"verdict": "no_go"})
    assert _seen(RELEASE, live, Effect("done"), Seen(), None, None, attended=attended).verdict == "no_go"


def test_a_release_that_nobody_watches_is_a_trouble() -> None:
    known, clock = LiveReleases(), _Clock(3.0)
    nothing = cast("Any", None)
    rollout = Rollout(nothing, nothing, known, clock, watch=nothing, shadow=nothing, report=nothing)
    rollout._stands[7] = RELEASE
    known.of(7).attend(2.0, begun_at=0.0)
    assert [*rollout.troubles] == []
    known.of(7).leave("the watcher stopped on a bug")
    (trouble,) = rollout.troubles
    assert (trouble.code, trouble.message) == (
        "release.unwatched",
        "nobody watches release 7 of web: the watcher stopped on a bug",
    )


@pytest.mark.asyncio
async def test_a_watcher_that_fails_says_so() -> None:
    """The real one, on a store that cannot be asked: it is a bug, and it ends no watch for ever."""

    async def judged(number: int) -> None:
        told.set_result(number)
        raise ValueError(number)

    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    parts = SimpleNamespace(
        store=SimpleNamespace(judged=judged), effects=None, clock=_Clock(3.0), probe=None, metrics=None
    )
    live = Live()
    live.attend(2.0, begun_at=0.0)
    watching = asyncio.create_task(Watcher(RELEASE, live, cast("Any", parts)).run())
    assert await told == 7
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert (live.attended(3.0), live.watch_fault) == (False, "the watcher stopped on a bug: ValueError: 7")

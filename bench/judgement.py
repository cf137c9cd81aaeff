"""Claim: a judge is wrong less often, and sees sooner what is wrong, than the rules of Argo, Flagger and Kayenta.

All see the same simulated releases: 500 requests a second of 20,000 users, a tenth of them on the candidate. Ours is
the product's own code (`Board`, `LatencyWatch`, the rules of the default settings), run for R releases at once.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.judge_peers import Peer, all_peers
from bench.judged_traffic import (
    ACTIVE,
    BASELINE,
    CANARY,
    MEDIAN_SECONDS,
    REST,
    SIGMA,
    USERS,
    Second,
    Traffic,
    World,
    constant,
)
from bench.measure import Result
from bench.report import run
from interlock.core.judgement import JudgeSettings, PromqlMeasure
from interlock.core.traffic import Sample
from interlock.releases.judge.board import Board, Counts
from interlock.releases.judge.judge import Judge
from interlock.releases.judge.latency import Edges, Exceedances, LatencyWatch
from interlock.releases.judge.measures import rules
from interlock.releases.judge.readings import Reading, Readings

HOUR = 3600.0
RELEASES, RELEASES_QUICK = 1000, 40
NULL_TICK_SECONDS = 2.0
"""An hour of a thousand releases is simulated in ticks of two seconds; delays in those of one."""
SETTINGS = JudgeSettings(refusals="ignore")
RAMP = ((0.0, 0.05), (900.0, 0.10), (1800.0, 0.25), (2700.0, 0.50))
"""A new weight each quarter of an hour."""
FEW_USERS, FEW_USERS_TICK_SECONDS = 200, 5.0
TICKS_TIMED, TICKS_TIMED_QUICK = 1500, 200


def _during(first: float, last: float, inside: float, outside: float) -> Callable[[float], float]:
    return lambda seconds: inside if first <= seconds < last else outside


def _drift(middle: float, swing: float) -> Callable[[float], float]:
    return lambda seconds: middle * (1 + swing * math.sin(2 * math.pi * seconds / HOUR))


def _ramp(seconds: float) -> float:
    return max(share for since, share in RAMP if since <= seconds)


NULLS = (
    World("equal versions"),
    World(
        "an incident that both share",
        error_share=_during(1200, 1380, 0.06, 0.01),
        slower=_during(1200, 1380, 1.6, 1.0),
    ),
    World("a ramp with drift", error_share=_drift(0.01, 0.8), slower=_drift(1.0, 0.25), candidate_share=_ramp),
    World("users who always fail", always_failing=0.005),
)


@dataclass(frozen=True)
class Regression:
    """What becomes worse, and within how many seconds half of the releases must be sent back."""

    world: World
    limit: float


REGRESSIONS = (
    Regression(World("errors 1 -> 3 %", error_share_candidate=constant(0.03), latencies=False), 15),
    Regression(World("errors 1 -> 5 %", error_share_candidate=constant(0.05), latencies=False), 6),
    Regression(World("errors 1 -> 20 %", error_share_candidate=constant(0.20), latencies=False), 2),
    Regression(World("latency +30 %", slower_candidate=1.3), 15),
)
LATE = Regression(
    World(
        "errors 1 -> 3 % after 20 min",
        error_share_candidate=lambda seconds: 0.03 if seconds >= 1200 else 0.01,
        latencies=False,
    ),
    math.inf,
)


class Ours:
    """The product's judge over R releases."""

    name = "Interlock"

    def __init__(self, releases: int, edges: Edges, tick_seconds: float) -> None:
        self.fired_at = np.full(releases, np.inf)
        self.certified_at = np.full(releases, np.inf)
        self._tick_seconds = tick_seconds
        self._board = Board(
            rules(SETTINGS), false_alarm=SETTINGS.false_alarm, false_go=SETTINGS.false_go, shape=(releases,)
        )
        self._latency = LatencyWatch(edges, SETTINGS.latency_quantiles, (releases,))

    def tick(self, at: float, second: Second) -> None:
        """Take what came until `at`."""
        exceeded = self._latency.tick(second.stable_latencies, second.candidate_latencies, self._tick_seconds)
        self._board.tick(_counts(second, exceeded), self._tick_seconds)
        evidence = self._board.evidence()
        self.fired_at[self._board.sent_back(evidence).any(axis=-1) & np.isinf(self.fired_at)] = at
        certified = self._board.certified(evidence)[:, self._board.required].all(axis=-1)
        self.certified_at[certified & np.isinf(self.certified_at) & np.isinf(self.fired_at)] = at


def measure(quick: bool) -> list[Result]:  # noqa: FBT001 - the shape of every measure
    """False alarms within an hour, delays until what is worse goes back, and how soon what is equal is certified."""
    releases = RELEASES_QUICK if quick else RELEASES
    return [
        *_false_alarms(releases, HOUR),
        _few_users(releases // 10),
        *_delays(releases),
        *_certification(releases),
        _certification_by_judge(max(releases // 25, 3)),
        *_tick_times(TICKS_TIMED_QUICK if quick else TICKS_TIMED),
    ]


def _false_alarms(releases: int, horizon: float) -> list[Result]:
    found = []
    for number, world in enumerate(NULLS):
        ours, peers = simulate(world, releases, horizon, seed=number, tick_seconds=NULL_TICK_SECONDS)
        found.append(_share(f"false alarms, {world.name}, 1 h", ours.fired_at, limit=100 * SETTINGS.false_alarm))
        found += [_share(f"  {peer.name}", peer.fired_at) for peer in peers]
    return found


def _few_users(releases: int) -> Result:
    """Twenty users on the candidate and 180 on the other, each slow or fast by himself on either; by `Judge`."""
    sent_back = 0
    for seed in range(releases):
        random = np.random.default_rng(seed)
        slowness = 0.4 * random.standard_normal(FEW_USERS)
        judge = Judge(SETTINGS, "v1", "v2")
        for at in np.arange(0.0, HOUR / 2, FEW_USERS_TICK_SECONDS):
            coming = np.flatnonzero(random.random(FEW_USERS) < 1 - math.exp(-FEW_USERS_TICK_SECONDS / 4))
            seconds = MEDIAN_SECONDS * np.exp(slowness[coming] + 0.45 * random.standard_normal(len(coming)))
            judgement = judge.tick(
                float(at), [_sample(*each) for each in zip(coming.tolist(), seconds.tolist(), strict=True)]
            )
        sent_back += judgement.verdict == "no_go"
    return Result("false alarms, 200 users who differ in speed, 30 min", "%", (100.0 * sent_back / releases,), 1.0)


def _sample(user: int, seconds: float, *, failed: bool = False) -> Sample:
    return Sample(
        at_seconds=0.0,
        arm="v2" if user % 10 == 0 else "v1",
        status=500 if failed else 200,
        seconds=seconds,
        client_left=False,
        fell_back=False,
        unit=f"user {user}",
        request="",
    )


def _delays(releases: int) -> list[Result]:
    found = []
    for number, regression in enumerate((*REGRESSIONS, LATE)):
        world = regression.world
        began = 1200.0 if regression is LATE else 0.0
        horizon = began + (1500.0 if not world.latencies else 600.0)
        tick_seconds = NULL_TICK_SECONDS if regression is LATE else 1.0
        ours, peers = simulate(world, releases, horizon, seed=100 + number, tick_seconds=tick_seconds)
        limit = regression.limit if math.isfinite(regression.limit) else None
        found.append(_delay(f"until sent back, {world.name}, median", ours.fired_at, began, horizon, limit=limit))
        found += [_delay(f"  {peer.name}", peer.fired_at, began, horizon) for peer in peers]
    return found


def _certification(releases: int) -> list[Result]:
    """No peer knows such a thing: they promote when time is up."""
    ours, _ = simulate(World("equal versions"), releases, 900.0, seed=200, tick_seconds=1.0, with_peers=False)
    return [_delay("until GO, equal versions, median", ours.certified_at, 0.0, 900.0, limit=300.0)]


def _certification_by_judge(releases: int) -> Result:
    """The same by the whole judge, which learns how much users differ and weighs their further answers by it."""
    horizon = 900
    found = []
    for seed in range(releases):
        random = np.random.default_rng(seed)
        judge = Judge(SETTINGS, "v1", "v2")
        for at in range(1, horizon + 1):
            coming = np.unique(random.integers(0, USERS, random.poisson(USERS * ACTIVE)))
            seconds = MEDIAN_SECONDS * np.exp(SIGMA * random.standard_normal(len(coming)))
            failing = random.random(len(coming)) < 0.01
            columns = zip(coming.tolist(), seconds.tolist(), failing.tolist(), strict=True)
            judgement = judge.tick(float(at), [_sample(who, each, failed=bad) for who, each, bad in columns])
            if judgement.verdict != "not_yet":
                break
        found.append(at if judgement.verdict == "go" else horizon)
    return Result("until GO, equal versions, by the whole judge, median", "s", tuple(map(float, found)), 300.0)


def simulate(
    world: World, releases: int, horizon: float, *, seed: int, tick_seconds: float, with_peers: bool = True
) -> tuple[Ours, list[Peer]]:
    """Let all judges see the same `releases` in a world for `horizon` seconds."""
    edges = Edges.logarithmic(SETTINGS.latency_increase_max, shortest=0.004, longest=4.0)
    traffic = Traffic(world, releases, edges, seed=seed, tick_seconds=tick_seconds)
    ours = Ours(releases, edges, tick_seconds)
    peers = all_peers(releases, edges) if with_peers else []
    for number in range(1, round(horizon / tick_seconds) + 1):
        second = traffic.tick()
        for judge in (ours, *peers):
            judge.tick(number * tick_seconds, second)
    return ours, peers


def _counts(second: Second, exceeded: Exceedances) -> Counts:
    """Errors, then each quantile: the order of `rules`."""
    errors, users = second.first_errors, second.users

    def column(first: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.concatenate([first[:, None].astype(np.float64), others], axis=1)

    stable = [BASELINE, REST]
    return Counts(
        stable_bad=column(errors[:, stable].sum(axis=1), exceeded.stable),
        stable_seen=column(users[:, stable].sum(axis=1), exceeded.stable_seen),
        candidate_bad=column(errors[:, CANARY], exceeded.candidate),
        candidate_bad_margin=column(errors[:, CANARY], exceeded.candidate_margin),
        candidate_seen=column(users[:, CANARY], exceeded.candidate_seen),
    )


def _share(name: str, fired_at: np.ndarray, limit: float | None = None) -> Result:
    return Result(name, "%", (100.0 * float(np.isfinite(fired_at).mean()),), limit)


def _delay(name: str, fired_at: np.ndarray, began: float, horizon: float, limit: float | None = None) -> Result:
    """The median over releases with the 10th and 90th percentile; what was not seen counts as the whole horizon."""
    early = fired_at < began
    delays = np.where(np.isfinite(fired_at), fired_at, horizon)[~early] - began
    figures = {
        "p10": float(np.quantile(delays, 0.1)),
        "p90": float(np.quantile(delays, 0.9)),
        "seen_percent": 100.0 * float(np.isfinite(fired_at[~early]).mean()),
        "before_it_began_percent": 100.0 * float(early.mean()),
    }
    return Result(name, "s", (float(np.median(delays)),), limit, "at most", figures)


def _tick_times(ticks: int) -> list[Result]:
    """Processor time of one release with 20 measures, and what grows with traffic: users and requests are counted."""
    found = []
    for requests, limit in ((100, 1.0), (500, None)):
        times = _times_of_ticks(ticks, requests)
        figures = {"p99": statistics.quantiles(times, n=100)[98]}
        name = f"one tick of the judge, 20 measures and {requests} requests, p50"
        found.append(Result(name, "ms", (statistics.median(times),), limit, "at most", figures))
    return found


def _times_of_ticks(ticks: int, requests: int) -> list[float]:
    declared = tuple(
        PromqlMeasure(source="promql", name=f"made-up-{number}", url="http://localhost:9090", bad="a", total="b")
        for number in range(13)
    )
    settings = JudgeSettings(measures=declared)
    assert len(rules(settings)) == 20
    judge = Judge(settings, "v1", "v2")
    random = np.random.default_rng(0)
    batches = [_samples(random, number, requests) for number in range(20)]
    times = []
    for number in range(ticks):
        reading = Readings(Reading(number * 0.4, number * 45.0), Reading(number * 0.05, number * 5.0))
        readings = {each.name: reading for each in declared}
        samples = [sample._replace(at_seconds=float(number)) for sample in batches[number % len(batches)]]
        began = time.thread_time()
        judge.tick(float(number), samples, readings)
        times.append((time.thread_time() - began) * 1000)
    return times


def _samples(random: np.random.Generator, number: int, requests: int) -> list[Sample]:
    latencies = 0.06 * np.exp(0.6 * random.standard_normal(requests))
    return [
        Sample(
            at_seconds=0.0,
            arm="v2" if user % 10 == 0 else "v1",
            status=500 if random.random() < 0.01 else 200,
            seconds=float(seconds),
            client_left=False,
            fell_back=False,
            unit=f"{number:04}{user:012}",
            request=f"{number}-{user}",
        )
        for user, seconds in enumerate(latencies)
    ]


if __name__ == "__main__":
    sys.exit(run((measure,)))

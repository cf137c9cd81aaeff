"""Waits until a version can answer: asks again and again, for a bounded time, and believes several answers in a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interlock.core.health_probe import HealthProbe, ProbeAnswer
from interlock.core.service_runtime import InstanceState
from interlock.core.workload import Health, Traffic
from interlock.lib.clock import Clock

RESTARTS_MAX = 5
"""A version that ended by itself so often before it was healthy is not waited for any longer."""


@dataclass(frozen=True)
class Probed:
    """What waiting came to: whether it is healthy, and in one line why not, or how long it took."""

    ok: bool
    words: str
    asked: int


def await_healthy(
    ask: Callable[[], ProbeAnswer],
    health: Health,
    *,
    clock: Clock,
    pause: Callable[[float], None],
    hopeless: Callable[[], str | None] = lambda: None,
) -> Probed:
    """Ask until `health.successes` answers in a row are good, or the deadline.

    Args:
        ask: One question.
        health: How often, how long, how many.
        clock: Tells when the deadline has passed.
        pause: Waits for so many seconds, or less when waiting has become pointless.
        hopeless: Why it makes no sense to go on waiting; None while it does.
    """
    begun = clock.monotonic()
    good, asked, last = 0, 0, ProbeAnswer(status=None, reason="it was not asked yet")
    while True:
        last = ask()
        asked += 1
        good = good + 1 if last.good else 0
        spent = clock.monotonic() - begun
        if good >= health.successes:
            return Probed(ok=True, words=f"it was healthy after {spent:.1f} s", asked=asked)
        why = None if last.good else hopeless()
        if why is not None:
            return Probed(ok=False, words=why, asked=asked)
        if spent + health.interval_seconds > health.deadline_seconds:
            words = f"not healthy within {health.deadline_seconds:g} s, {asked} times asked: {last.reason or 'too few'}"
            return Probed(ok=False, words=words, asked=asked)
        pause(health.interval_seconds)


def ask_inside(probe: HealthProbe, address: str, health: Health) -> ProbeAnswer:
    """Whether the version itself answers, at its own address."""
    return probe.ask(address, health.path, timeout_seconds=health.timeout_seconds)


def ask_outside(probe: HealthProbe, traffic: Traffic, version: str, health: Health) -> ProbeAnswer:
    """Whether users can be answered by this version: through the proxy, with the testers' header where there is one."""
    headers = {traffic.testers: version} if traffic.testers is not None else None
    return probe.ask(_reachable(traffic.listen), health.path, timeout_seconds=health.timeout_seconds, headers=headers)


def await_outside(
    probe: HealthProbe,
    traffic: Traffic,
    version: str,
    health: Health,
    *,
    clock: Clock,
    pause: Callable[[float], None],
) -> Probed:
    """The same as `await_healthy`, by the way that users come."""
    return await_healthy(lambda: ask_outside(probe, traffic, version, health), health, clock=clock, pause=pause)


def hopeless_of(state: InstanceState | None, restarts_before: int) -> str | None:
    """Why a version will not become healthy, as its runtime sees it; None while it may."""
    if state is None:
        return "nothing of it runs"
    if state.phase == "given_up":
        return f"it ended too often ({state.last_exit}); see {state.log}"
    if state.restarts - restarts_before >= RESTARTS_MAX:
        return f"it ended {RESTARTS_MAX} times before it was healthy ({state.last_exit}); see {state.log}"
    return None


def _reachable(listen: str) -> str:
    """An address of all interfaces is asked on this machine."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in {"0.0.0.0", "[::]"} else listen  # noqa: S104 - compared, not bound

"""Brings about what a release wants of the world where it stands: asked for at the door, once for each place."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

from interlock.core.ask import Ask
from interlock.core.errors import Conflict, Denied, InterlockError, Stale, Transient
from interlock.core.golden import GOLDEN_FOLDER
from interlock.core.outside import Outside
from interlock.core.run import Run, RunState
from interlock.core.service_instance import SERVICE_INSTANCES, STANDING
from interlock.core.traffic import DATA_PLANES, DataPlane, Mirror, Routing
from interlock.engine.store import RunStore
from interlock.engine.submit import Door
from interlock.lib.clock import Clock
from interlock.releases.asks import asker, forget_ask, golden_ask, route_ask, start_ask
from interlock.releases.examined import GATES, GOLDEN, done_of, gates_note, gates_of, golden_note, said_note, said_of
from interlock.releases.live import Live
from interlock.releases.model import Cause, Note, Release, Wanted, wanted
from interlock.releases.store import ReleaseStore

Outcome = Literal["done", "pending", "waits", "failed"]

WAIT_SECONDS, WAIT_BACK_SECONDS = 0.5, 5.0
ATTEMPTS_MAX = 4
ATTEMPTS_TOLD = 5
"""A way back is tried for ever, and the timeline says so only at the beginning."""
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.2, 10.0
HELD_UP_SECONDS = 2.0
"""How often it is looked whether a freeze or a window is over."""


@dataclass(frozen=True)
class Effect:
    """How far something is that a release wants; `words` say why it waits or failed, `cause` who is to blame for that,
    and `run` which Run did it."""

    outcome: Outcome
    words: str = ""
    cause: Cause = "effect"
    run: int | None = None


ENDED = {
    RunState.FAILED: "failed",
    RunState.UNDONE: "was undone",
    RunState.DENIED: "was denied",
    RunState.STALE: "went stale",
    RunState.EXPIRED: "expired",
    RunState.CANCELLED: "was cancelled",
}
"""How a Run ended that did not succeed, as prose."""
DONE, PENDING = Effect("done"), Effect("pending")


class Effects:
    """Asks for what is wanted and not there; what was asked for before a crash is found again by its key."""

    def __init__(self, store: ReleaseStore, runs: RunStore, door: Door, outside: Outside, clock: Clock) -> None:
        self._store = store
        self._runs = runs
        self._door = door
        self._outside = outside
        self._clock = clock

    async def bring_about(self, release: Release, live: Live, mirror: Mirror | None) -> Effect:
        """One pass over what is wanted, in the order in which it must happen.

        `mirror`: where the comparator of a shadow step listens; None where nothing is compared.
        """
        if self._clock.monotonic() < live.retry_at:
            return PENDING
        want = wanted(release)
        if want.start:
            found = await self._start(release, live)
            if found.outcome != "done":
                return found
        if want.shares is not None:
            found = await self._route(release, live, want, mirror)
            if found.outcome != "done":
                return found
        if want.forget:
            return await self._forget(release, live)
        return DONE

    async def routing(self, release: Release) -> Routing | None:
        """What is in force at the proxy."""
        return await asyncio.to_thread(self.plane(release).current, release.name)

    async def gone(self, release: Release) -> str | None:
        """Why the candidate does not run any more, when somebody stopped it; one that dies is started again."""
        found = await asyncio.to_thread(self._outside[SERVICE_INSTANCES].find, release.name, release.candidate)
        if found is None or found.stage in STANDING:
            return None
        how = "never became healthy" if found.stage == "failed" else f"is {found.stage}"
        return f"{release.candidate} {how} (Run {found.run})"

    def plane(self, release: Release) -> DataPlane:
        """The proxy of this service."""
        return self._outside[DATA_PLANES[release.workload.traffic.proxy]]

    async def _start(self, release: Release, live: Live) -> Effect:
        """Gates, start, and then golden samples: what one of these finds wrong is the candidate's fault."""
        found = await self._ask(release, live, start_ask(release), attempts_max=1)
        if found.run is not None and not (found.outcome == "done" and GATES in release.told):
            rows = await self._runs.evidence(found.run)
            if found.outcome == "failed" and (said := said_of(rows)):
                await self._store.say_once(release, said_note(release.candidate, said), self._clock.now())
            gates = gates_of(done_of(rows))
            if gates:
                await self._store.say_once(release, gates_note(gates), self._clock.now())
            if any(gate["ok"] is not True for gate in gates):
                found = replace(found, cause="gate")
        if found.outcome != "done" or not await asyncio.to_thread(self._has_golden, release.name):
            return found
        found = await self._ask(release, live, golden_ask(release), attempts_max=1)
        if found.run is not None and GOLDEN not in release.told:
            note = golden_note(done_of(await self._runs.evidence(found.run)))
            await self._store.say_once(release, note, self._clock.now())
        return replace(found, cause="gate") if found.outcome == "failed" and found.run is not None else found

    def _has_golden(self, workload: str) -> bool:
        folder = self._outside[GOLDEN_FOLDER] / workload
        return folder.is_dir() and any(folder.glob("*.json"))

    async def _route(self, release: Release, live: Live, want: Wanted, mirror: Mirror | None) -> Effect:
        found = DONE
        # On the way back nobody looks first whether it is there already: what counts is each millisecond.
        if (want.back and release.attempt == 0) or not in_force(await self.routing(release), want, mirror):
            found = await self._ask(release, live, route_ask(release, want, mirror), attempts_max=ATTEMPTS_MAX)
        if found.outcome == "done" and want.back and release.goal != "failed" and release.reached_users:
            text = f"all users get {release.stable} again"
            await self._store.say_once(release, Note(word="routed_back", text=text, once=True), self._clock.now())
        return found

    async def _forget(self, release: Release, live: Live) -> Effect:
        """There was nothing before it, so nobody is answered any more; what it is answering is finished first."""
        if await self.routing(release) is None:
            return DONE
        return await self._ask(release, live, forget_ask(release), attempts_max=ATTEMPTS_MAX)

    async def _ask(self, release: Release, live: Live, ask: Ask, *, attempts_max: int) -> Effect:
        """What became of an ask; it is asked for first, where policy lets it."""
        actor, back = asker(release), wanted(release).back
        try:
            known = None if back else await self._runs.by_key(actor.id, str(ask.key))
            if known is None and not back and (held_up := await self._held_up(release, ask)) is not None:
                live.retry_at = self._clock.monotonic() + HELD_UP_SECONDS
                return Effect("waits", held_up)
            run = await self._door.submit(actor, ask)
            if not isinstance(run, Run):
                return Effect("failed", f"a confirmed ask for {ask.action} came back as a proposal")
            if run.state in (RunState.QUEUED, RunState.RUNNING):
                run = await self._door.wait(run.number, WAIT_BACK_SECONDS if back else WAIT_SECONDS)
        except (Denied, Stale, Conflict, Transient) as error:
            return await self._again(release, live, error.message, attempts_max=max(2, attempts_max))
        except InterlockError as error:
            return await self._again(release, live, error.message, attempts_max=attempts_max)
        return await self._became(release, live, run, attempts_max=attempts_max)

    async def _held_up(self, release: Release, ask: Ask) -> str | None:
        """Why policy does not let it happen now, without making a Run of every look."""
        proposal = await self._door.propose(asker(release), ask)
        if proposal.decision.outcome != "forbid":
            return None
        return f"{ask.reason} may not happen now: " + "; ".join(each.reason for each in proposal.decision.reasons)

    async def _became(self, release: Release, live: Live, run: Run, *, attempts_max: int) -> Effect:
        if run.state is RunState.SUCCEEDED:
            return Effect("done", run=run.number)
        if run.state in (RunState.QUEUED, RunState.RUNNING):
            return PENDING
        why = run.state_reason or run.state.value
        if run.state in (RunState.WAITING, RunState.UNRESOLVED):
            return Effect("waits", f"Run {run.number} waits for a person: {why}")
        words = f"Run {run.number} ({run.plan.summary}) {ENDED.get(run.state, run.state.value)}: {why}"
        stale = run.state is RunState.STALE
        most = max(2, attempts_max) if stale else attempts_max
        # What is not tried again sends the release back, and stands in the timeline as the reason.
        if release.attempt < ATTEMPTS_TOLD and (wanted(release).back or release.attempt + 1 < most):
            note = Note(word="effect_failed", text=words, data={"run": run.number})
            await self._store.note(release, note, self._clock.now(), run=run.number)
        return replace(await self._again(release, live, words, attempts_max=most), run=run.number)

    async def _again(self, release: Release, live: Live, words: str, *, attempts_max: int) -> Effect:
        """Under a new key after a pause; going back is never given up."""
        back = wanted(release).back
        if not back and release.attempt + 1 >= attempts_max:
            return Effect("failed", words)
        pause = min(RETRY_SECONDS * 2**release.attempt, RETRY_SECONDS_MAX)
        live.retry_at = self._clock.monotonic() + pause
        await self._store.try_again(release)
        return Effect("failed", words) if back else PENDING


def in_force(routing: Routing | None, want: Wanted, mirror: Mirror | None) -> bool:
    """Whether a routing shares users as it is wanted. Pure."""
    if routing is None or want.shares is None:
        return False
    given = {arm.name: arm.share for arm in routing.arms}
    return given == dict(want.shares) and routing.mirror == mirror

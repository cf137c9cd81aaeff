"""The worker: claims Runs, keeps their leases, takes over what the dead left, and stops gracefully."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from interlock.core.errors import Transient
from interlock.core.evidence import Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.run import Run, RunState
from interlock.engine.cancellation import cancel_all
from interlock.engine.db import Database
from interlock.engine.execution import Execution, Services
from interlock.engine.hold import Hold
from interlock.engine.identity import is_dead, owner_of
from interlock.engine.metrics import ABANDONED, LEASES_LOST, TAKEOVERS
from interlock.engine.policy.load import GROUPS
from interlock.engine.progress import started_data
from interlock.engine.signals import Signals
from interlock.engine.store import BEAT_SECONDS, LEASE_SECONDS, UNCAPPED, Caps, Claimed, LeaseLost, RunStore, event_of
from interlock.engine.tally import waited_seconds
from interlock.engine.telemetry import follow
from interlock.engine.trail import RecordLost, Trail, plain

log = structlog.get_logger()

SWEEP_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
STOP_GRACE_SECONDS = 20.0
MARGIN_SECONDS = 1.0
"""How much earlier than the table this process believes its lease to end."""


URGENT = frozenset({*GROUPS["control"], "release.abort", "release.rollback", "traffic.route"})
"""What steers Interlock never waits behind what it is there to stop; nor does what gives users a good version again."""
URGENT_SLOTS = 2
SLOTS_OF_PEOPLE = 2
"""Which all agents together leave free, however many there are: somebody has to be able to look after them."""


def _is_agent(actor_id: str) -> bool:
    return actor_id.startswith("agent:")


@dataclass(frozen=True)
class WorkerLimits:
    """How much one worker takes on."""

    slots: int
    caps: Caps


class Runner:
    """Performs Runs in this process, in `slots` at once."""

    def __init__(
        self,
        database: Database,
        *,
        store: RunStore,
        services: Services,
        signals: Signals,
        worker: JsonObject,
        limits: WorkerLimits,
    ) -> None:
        self._database = database
        self._store = store
        self._services = services
        self._signals = signals
        self._worker = worker
        self.owner = owner_of(worker)
        for_agents = max(1, limits.slots - SLOTS_OF_PEOPLE)
        self.limits = replace(limits, caps=replace(limits.caps, agents=for_agents))
        self._free = limits.slots
        self._holds: dict[int, Hold] = {}
        self._abandoned: set[int] = set()
        self._promised: list[tuple[str, str]] = []
        self._wake = asyncio.Event()
        self._starved = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[Run | None]] = set()
        self._leaving: dict[int, asyncio.Task[Run | None]] = {}
        self._meter = services.telemetry.meter
        self.listening = False
        """Whether the database tells at once of what is queued; otherwise it is seen a moment later."""
        self.beat_at: float | None = None
        """The monotonic time at which this worker last looked after its leases."""

    async def start(self) -> None:
        """Begin to claim, to beat and to listen."""
        for work in (self._claim_forever, self._beat_forever, self._sweep_forever, self._listen_forever):
            self._tasks.add(asyncio.create_task(_whatever_happens(work), name=f"runner.{work.__name__}"))

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Claim nothing more, let steps end, give the rest back to the queue; what does not end in time is killed."""
        self._services.stopping.set()
        keep = {task for task in self._tasks if task.get_name() == "runner._beat_forever"}
        await cancel_all(self._tasks - keep)
        if self._working:
            _, late = await asyncio.wait(self._working, timeout=grace_seconds)
            for hold in list(self._holds.values()):
                hold.end()
            if late:
                await asyncio.wait(late, timeout=STOP_GRACE_SECONDS)
        await cancel_all({*keep, *self._working})

    @property
    def running(self) -> int:
        """How many Runs this process performs now."""
        return len(self._holds)

    @property
    def guards(self) -> int:
        """How many guarded programs run here now."""
        return sum(hold.processes for hold in self._holds.values())

    @property
    def working(self) -> bool:
        """Whether everything that this worker does all the time goes on."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def reserve(self, asked: tuple[str, str] | None = None) -> bool:
        """Take a slot for a Run that is about to be recorded; `perform` or `release` must follow.

        `asked` is its actor and action: what other tasks are recording at this moment the table does not show yet, so
        that it is counted here against the caps until `settle` or `release`.
        """
        urgent = asked is not None and asked[1] in URGENT
        if self._free <= (-URGENT_SLOTS if urgent else 0) or self._services.stopping.is_set():
            return False
        if asked is not None and not urgent and self._at_cap(*asked):
            return False
        self._free -= 1
        if asked is not None:
            self._promised.append(asked)
        return True

    def will_claim(self, *, reserved: bool) -> bool:
        """Whether this worker, when it is poked, looks for a Run that is queued now: a slot is free, or is `reserved`
        and will be."""
        return bool(self._tasks) and not self._services.stopping.is_set() and (reserved or self._free > 0)

    def caps_for(self, action: str) -> Caps:
        """What an ask for this action is held to in the table."""
        return Caps(UNCAPPED, {}) if action in URGENT else self.limits.caps

    def settle(self, asked: tuple[str, str]) -> None:
        """What was reserved for is recorded and performed."""
        self._promised.remove(asked)

    def release(self, asked: tuple[str, str] | None = None, *, more: bool = False) -> None:
        """Give a reserved slot back. `more`: a Run is known to be queued for it."""
        if asked is not None:
            self._promised.remove(asked)
        self._free += 1
        if more or self._starved:
            self.poke()

    def _at_cap(self, actor_id: str, action: str) -> bool:
        """Whether this process alone fills the caps of an actor or an action."""
        runs = [*((hold.run.actor.id, hold.run.action) for hold in self._holds.values()), *self._promised]
        caps = self.limits.caps
        return (
            sum(actor == actor_id for actor, _ in runs) >= caps.per_actor
            or sum(name == action for _, name in runs) >= caps.per_action.get(action, UNCAPPED)
            or (_is_agent(actor_id) and sum(_is_agent(actor) for actor, _ in runs) >= caps.agents)
        )

    def beginning(self, plan: Plan) -> JsonObject | None:
        """What is written of the first step's start together with the claim, so that one transaction does for both.

        None where a crash right after it would leave a doubt: there it is written when the step is about to begin.
        """
        step = plan.steps[0]
        if step.repeatable or not step.changes or self._services.action(plan.action).guarded:
            return started_data(0, 1, "do", self._worker)
        return None

    def perform(
        self,
        run: Run,
        *,
        recheck: bool,
        asked_at: float,
        rows: tuple[Evidence, ...] | None = None,
        begun: bool = False,
    ) -> None:
        """Perform a claimed Run in a reserved slot.

        `asked_at`: the monotonic time before the claim was sent. `rows`: its evidence, when the caller knows it.
        `begun`: the last of them says that its first step begins.
        """
        known = self._holds.get(run.number)
        if known is not None and known.run.fence >= run.fence:
            self.release()  # the answer to an older claim of ours came late
            return
        hold = Hold(run, asked_at + LEASE_SECONDS - MARGIN_SECONDS, self._services.clock)
        self._holds[run.number] = hold
        task = asyncio.create_task(self._perform(hold, rows, recheck=recheck, begun=begun), name=f"run.{run.number}")
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        self._leaving[run.number] = task

    async def left(self, number: int, timeout_seconds: float) -> Run | None:
        """The Run as this process leaves it; None when it is not performed here, was lost, or the time is over."""
        task = self._leaving.get(number)
        if task is not None:
            await asyncio.wait({task}, timeout=max(0.0, timeout_seconds))
        return task.result() if task is not None and task.done() and not task.cancelled() else None

    def poke(self) -> None:
        """Something may be claimable."""
        self._wake.set()

    def cancel(self, number: int, by: str) -> None:
        """Cancel at once what this process performs; others see it at their next beat."""
        if number in self._holds:
            self._holds[number].cancel(by)

    async def _perform(
        self, hold: Hold, rows: tuple[Evidence, ...] | None, *, recheck: bool, begun: bool
    ) -> Run | None:
        number, run, more = hold.run.number, None, True
        follow(hold.run)
        self._services.telemetry.passed("queue", waited_seconds(hold.run, LEASE_SECONDS), run=number)
        begun_at = self._services.clock.monotonic()
        try:
            rows = await self._store.evidence(number) if rows is None else rows
            left = await Execution(self._services, hold, rows, recheck=recheck, begun=begun).finish()
            run, more = left.run, left.more
            latency = round(self._services.clock.monotonic() - begun_at, 6)
            log.info(
                "run.left",
                status=run.state.value,
                latency=latency,
                error_code=run.state_code,
                reason=run.state_reason,
            )
        except LeaseLost:
            self._meter.count(LEASES_LOST)
            log.warning("run.lease_lost")
        except (Transient, RecordLost) as error:
            # Nothing more is written; whoever takes over reads where it stands.
            self._meter.count(ABANDONED)
            log.warning("run.abandoned", reason=str(error))
            self._abandoned.add(number)
        except Exception as error:
            log.exception("run.bug")
            await self._mark_unresolved(hold.run, error)
        finally:
            hold.end()
            if self._holds.get(number) is hold:
                del self._holds[number]
                del self._leaving[number]
            self._signals.moved(number)
            self.release(more=more)
        return run

    async def _mark_unresolved(self, run: Run, error: Exception) -> None:
        """After a bug of the engine itself nobody knows where the Run stands; trying again would find the same bug."""
        reason = plain(f"Interlock has a bug: {type(error).__name__}: {error}")
        try:
            trail = Trail(self._store, run, await self._store.evidence(run.number), self._services.clock)
            note: JsonObject = {"note": "unresolved", "state": "unresolved", "reason": reason, "code": "bug"}
            trail.add(EvidenceKind.NOTED, note)
            event = event_of(run.number, "run.unresolved", run.actor, run.action, reason=reason, code="bug")
            await trail.leave(RunState.UNRESOLVED, reason, "bug", event)
        except (LeaseLost, RecordLost, Transient) as lost:
            log.warning("run.abandoned", reason=str(lost))

    async def _claim_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._fill_slots(partial(self._store.claim, self.owner, self.limits.caps))
            except Transient as error:
                log.warning("claim.failed", reason=error.message)

    async def _fill_slots(self, take: Callable[[], Awaitable[Claimed | None]]) -> None:
        """Take Runs as long as there are some and slots are free."""
        more = True
        while more and self.reserve():
            claimed = None
            try:
                asked_at = self._services.clock.monotonic()
                claimed = await take()
            finally:
                if claimed is None:
                    self._free += 1
            if claimed is None:
                more = False
            elif self._at_cap(claimed.run.actor.id, claimed.run.action):
                # Recorded and claimed by the door while this claim was under way.
                more = False
                self._free += 1
                await self._store.leave(claimed.run, RunState.QUEUED, None, None, (), ())
            else:
                more = claimed.more
                self.perform(claimed.run, recheck=True, asked_at=asked_at, rows=claimed.rows)
                self._signals.moved(claimed.run.number)
        self._starved = more

    async def _beat_forever(self) -> None:
        while True:
            self.beat_at = self._services.clock.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            if not self._holds:
                continue
            asked_at = self._services.clock.monotonic()
            try:
                renewals = await self._store.renew(self.owner, list(self._holds))
            except Transient as error:
                log.warning("beat.failed", reason=error.message)
                continue
            deadline = asked_at + LEASE_SECONDS - MARGIN_SECONDS
            for renewal in renewals:
                hold = self._holds.get(renewal.number)
                if hold is None or hold.run.fence != renewal.fence:
                    continue
                hold.renew(deadline)
                if renewal.cancelled_by is not None and hold.cancelled_by is None:
                    hold.cancel(renewal.cancelled_by)

    async def _sweep_forever(self) -> None:
        """What no notification told us: Runs that became due, and Runs whose worker died."""
        while True:
            try:
                dead = [owner for owner in await self._store.owners() if is_dead(owner, self._worker)]
                await self._fill_slots(partial(self._take_over, dead))
            except Transient as error:
                log.warning("sweep.failed", reason=error.message)
            self.poke()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _take_over(self, dead: list[str]) -> Claimed | None:
        taken = await self._store.take_over(self.owner, dead, held=list(self._holds), abandoned=list(self._abandoned))
        if taken is None:
            self._abandoned.clear()  # what is still ours and running would have been found
        else:
            self._meter.count(TAKEOVERS)
        return taken

    async def _listen_forever(self) -> None:
        """A notification wakes the claiming; a lost listener is made again, and the sweep covers the gap."""
        while True:
            try:
                async for _ in self._database.notifications("interlock_queued"):
                    self.listening = True
                    self.poke()
            except Transient as error:
                log.warning("listener.lost", reason=error.message)
            finally:
                self.listening = False
            await asyncio.sleep(RECONNECT_SECONDS)


def in_threads(threads: ThreadPoolExecutor) -> Callable[[Callable[[], Any]], Any]:
    """Runs plain functions of Actions in a bounded pool."""

    async def run(call: Callable[[], Any]) -> Any:
        # With its context: what is logged there names the Run as well.
        return await asyncio.get_running_loop().run_in_executor(threads, partial(copy_context().run, call))

    return run


async def _whatever_happens(work: Callable[[], Awaitable[None]]) -> None:
    """A bug in one turn is loud, and does not keep the worker from the next: other Runs wait for it."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("runner.bug", work=getattr(work, "__name__", "work"))
        await asyncio.sleep(RECONNECT_SECONDS)

"""All SQL of the Run row, its targets, its evidence and its approvals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from interlock.core.actor import Actor
from interlock.core.approval import Approval
from interlock.core.decision import Decision
from interlock.core.errors import Conflict, NotFound, Stale
from interlock.core.event import Event
from interlock.core.evidence import Evidence, EvidenceKind
from interlock.core.freeze import Freeze
from interlock.core.meter import Meter
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.run import Run, RunState, require_transition
from interlock.engine.db import Connection, Database
from interlock.engine.statements import (
    APPEND,
    CIRCUMSTANCES,
    CLAIM,
    FREEZES,
    INSERT,
    LEAVE,
    LOOK,
    MOVE,
    ONE_BY_ONE,
    RUN_COLUMNS,
    TAKE_OVER,
)
from interlock.engine.tally import Tally

UNCAPPED = 1_000_000
LEASE_SECONDS = 10.0
BEAT_SECONDS = 2.5


class LeaseLost(Exception):
    """Somebody else holds this Run now: whoever gets this must stop at once and write nothing more."""


@dataclass(frozen=True)
class NewRun:
    """A Run that is about to be recorded."""

    number: int
    state: RunState
    state_reason: str | None
    state_code: str | None
    actor: Actor
    plan: Plan
    digest: str
    decision: Decision
    ask_digest: str
    key: str | None
    reason: str | None
    expires_seconds: float | None
    undo_of: int | None
    retry_of: int | None
    timeout_seconds: float
    traceparent: str | None = None


@dataclass(frozen=True)
class Caps:
    """How many Runs may run at once for one actor, for one action, and for all agents together."""

    per_actor: int
    per_action: dict[str, int]
    agents: int = UNCAPPED


@dataclass(frozen=True)
class Prelude:
    """What the tables say before an ask is decided.

    `same_key` is the Run this actor already has under the key; `refused` one with this plan that a person denied him
    within the time in which it may not be asked again; `policy_refused` one that policy denied in that time.
    """

    number: int | None
    same_key: int | None
    refused: int | None
    policy_refused: int | None
    open_count: int
    waiting_count: int
    freezes: tuple[Freeze, ...]


@dataclass(frozen=True)
class Claimed:
    """A Run that this worker holds now.

    `rows` is all its evidence, None when it has to be read. `more`: another one may be there to be taken.
    """

    run: Run
    rows: tuple[Evidence, ...] | None
    more: bool


@dataclass(frozen=True)
class Left:
    """A Run as this worker left it. `more`: some Run is queued and due."""

    run: Run
    more: bool


@dataclass(frozen=True)
class Renewal:
    """A lease that was made longer, and who asked for the Run to be cancelled."""

    number: int
    fence: int
    cancelled_by: str | None


def slots_of(plan: Plan) -> list[str]:
    """The keys of the targets that the Run needs for itself: those it changes. Readers hinder nobody."""
    return sorted({target.key for step in plan.steps if step.changes for target in step.targets})


def _trail(rows: tuple[Evidence, ...], events: tuple[Event, ...]) -> dict[str, Any]:
    # Two texts rather than seven arrays: the driver spends more on an array than the server on a row.
    return {
        "rows": json.dumps([{"q": row.seq, "k": row.kind.value, "l": row.line, "h": row.hash} for row in rows]),
        "events": json.dumps([{"k": event.kind, "l": event.labels, "d": event.data} for event in events]),
    }


def _begun(
    rows: tuple[Evidence, ...],
    events: tuple[Event, ...],
    begun: tuple[tuple[Evidence, ...], tuple[Event, ...]] | None,
) -> dict[str, Any]:
    further_rows, further_events = begun or ((), ())
    whole = _trail((*rows, *further_rows), (*events, *further_events))
    return {"begun": begun is not None, "begun_rows": whole["rows"], "begun_events": whole["events"]}


def _end(rows: tuple[Evidence, ...]) -> dict[str, Any]:
    """When a Run ended and who cancelled it, as the row that closes it has them: verification compares."""
    closing = rows[-1].line if rows and rows[-1].kind is EvidenceKind.CLOSED else None
    told = {"at": None, "data": {}} if closing is None else json.loads(closing)
    return {"closed_at": told["at"], "cancelled_by": told["data"].get("cancelled_by")}


def _run(row: dict[str, Any]) -> Run:
    return Run.model_validate(row)


def evidence_of(row: dict[str, Any]) -> Evidence:
    """An evidence row as it came from the table."""
    return Evidence(run=row["run"], seq=row["seq"], kind=EvidenceKind(row["kind"]), line=row["line"], hash=row["hash"])


class RunStore:
    """Reads and writes Runs; every write of a running Run names its owner and fence."""

    def __init__(self, database: Database, meter: Meter | None = None) -> None:
        self._database = database
        self._tally = Tally(meter, LEASE_SECONDS)

    async def look(
        self, actor_id: str, key: str | None, digest: str, *, open_max: int, denied_minutes: int, take_number: bool
    ) -> Prelude:
        """All that a decision and a record need to know of the tables, in one round trip."""
        parameters = {
            "actor": actor_id,
            "key": key,
            "digest": digest,
            "open_max": open_max,
            "minutes": denied_minutes,
            "take": take_number,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(LOOK, parameters)).fetchone()
        if row is None:
            msg = "a select without a from gave no row"
            raise RuntimeError(msg)
        freezes = tuple(Freeze.model_validate(freeze) for freeze in row.pop("freezes"))
        return Prelude(**row, freezes=freezes)

    async def take_number(self) -> int:
        """The next short number; one that is never used leaves a gap and nothing else."""
        async with self._database.connection() as connection:
            row = await (await connection.execute("select nextval('run_number') as number")).fetchone()
        return int(row["number"])  # type: ignore[index]

    async def freezes(self) -> tuple[Freeze, ...]:
        """The freezes in force."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(f"select {FREEZES} as freezes".encode())).fetchone()
        return tuple(Freeze.model_validate(freeze) for freeze in row["freezes"])  # type: ignore[index]

    async def circumstances(self, number: int) -> tuple[tuple[Approval, ...], tuple[Freeze, ...]]:
        """The verdicts on a Run that were not used up, in order, and the freezes in force."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(CIRCUMSTANCES, {"number": number})).fetchone()
        if row is None:
            msg = "a select without a from gave no row"
            raise RuntimeError(msg)
        approvals = tuple(Approval.model_validate(each) for each in row["approvals"])
        return approvals, tuple(Freeze.model_validate(freeze) for freeze in row["freezes"])

    async def insert(
        self,
        new: NewRun,
        rows: tuple[Evidence, ...],
        events: tuple[Event, ...],
        approvals: tuple[Approval, ...],
        *,
        claim_for: str | None,
        caps: Caps | None,
        begun: tuple[tuple[Evidence, ...], tuple[Event, ...]] | None = None,
        waiting_max: int | None = None,
        tell: bool = True,
    ) -> Run:
        """Record an ask in one transaction: Run, evidence, targets, approvals, outbox.

        A queued Run is claimed at once for `claim_for` when no earlier open Run has its targets and the caps allow;
        then `begun`, rows and events of how its first step begins, is recorded with it. `tell`: wake the workers for
        one that is queued; commits that do so wait for each other, so that who wakes its own worker leaves it out.

        Returns: the Run as recorded, which is `running` when it was claimed.
        Raises: Conflict `run.key_taken` when the actor used the key meanwhile; `run.too_many_waiting` when
            `waiting_max` of his asks wait.
        """
        parameters = {
            **_trail(rows, events),
            **_begun(rows, events, begun),
            **_new_run_parameters(new),
            **_end(rows),
            "created_at": json.loads(rows[0].line)["at"],
            "owner": claim_for if new.state is RunState.QUEUED else None,
            "lease": LEASE_SECONDS,
            "cap_actor": caps.per_actor if caps else 0,
            "cap_agents": caps.agents if caps else 0,
            "cap_action": caps.per_action.get(new.plan.action, UNCAPPED) if caps else 0,
            "approvals": Jsonb([approval.model_dump(mode="json") for approval in approvals]),
            "waiting_max": waiting_max,
            "tell": tell,
        }
        for attempt in range(2):
            try:
                row = await self._insert(parameters, one_by_one=waiting_max is not None)
                if row is None and waiting_max is not None:
                    msg = f"{waiting_max} asks of {new.actor.id} wait for a person already"
                    fix = "wait for an answer, or cancel one: interlock cancel N"
                    raise Conflict(msg, code="run.too_many_waiting", fix=fix)
                return self._tally.recorded(_recorded(new, row), len(rows) + len(begun[0] if begun is not None else ()))
            except psycopg.errors.UniqueViolation as error:
                if error.diag.constraint_name == "run_key":
                    msg = f"the key {new.key!r} was used for another ask at the same moment"
                    raise Conflict(msg, code="run.key_taken", fix="use a new key for a new ask") from error
                if error.diag.constraint_name != "run_target_held" or attempt:
                    raise
                # Another Run took the target between our look and our write: then this one queues behind it.
                parameters["owner"] = None
        msg = "unreachable: the second attempt either returns or raises"
        raise RuntimeError(msg)

    async def _insert(self, parameters: dict[str, Any], *, one_by_one: bool) -> dict[str, Any] | None:
        if not one_by_one:
            async with self._database.connection() as connection:
                return await (await connection.execute(INSERT, parameters)).fetchone()
        async with self._database.transaction() as connection:
            await connection.execute(ONE_BY_ONE, parameters)
            return await (await connection.execute(INSERT, parameters)).fetchone()

    async def by_number(self, number: int) -> Run:
        """Raises NotFound."""
        async with self._database.connection() as connection:
            return await self._read(connection, number)

    async def by_key(self, actor_id: str, key: str) -> tuple[Run, str] | None:
        """The Run that this actor asked for under this key, with the digest of its ask."""
        query = f"select {RUN_COLUMNS}, ask_digest from run where actor_id = %s and key = %s"
        async with self._database.connection() as connection:
            row = await (await connection.execute(query.encode(), (actor_id, key))).fetchone()
        if row is None:
            return None
        ask_digest = row.pop("ask_digest")
        return _run(row), ask_digest

    async def evidence(self, number: int) -> tuple[Evidence, ...]:
        """All rows of a Run, in order."""
        async with self._database.connection() as connection:
            return await self._evidence(connection, number)

    async def approvals(self, number: int) -> tuple[Approval, ...]:
        """All verdicts on a Run that were not used up, in order."""
        async with self._database.connection() as connection:
            return await self._approvals(connection, number)

    async def claim(self, owner: str, caps: Caps) -> Claimed | None:
        """Take the oldest Run whose targets are free and whose actor and action are under their caps."""
        parameters = {
            "owner": owner,
            "lease": LEASE_SECONDS,
            "cap_actor": caps.per_actor,
            "cap_agents": caps.agents,
            "capped": list(caps.per_action),
            "cap_actions": list(caps.per_action.values()),
        }
        try:
            async with self._database.connection() as connection:
                row = await (await connection.execute(CLAIM, parameters)).fetchone()
        except psycopg.errors.UniqueViolation:
            return None
        if row is None:
            return None
        more, rows = row.pop("more"), row.pop("rows")
        row.pop("set_config")
        run = _run(row)
        evidence = rows and tuple(evidence_of({"run": run.number, **each}) for each in rows)
        self._tally.claimed(run)
        return Claimed(run, evidence, more)

    async def take_over(
        self, owner: str, dead_owners: list[str], *, held: list[int], abandoned: list[int]
    ) -> Claimed | None:
        """Take a running Run whose lease ended, or whose owner is known to be dead; the fence rises.

        `held` are those this worker is performing itself. A Run of its own that it does not perform is one whose
        claim was committed although the answer was lost, or one that it abandoned: it knows which, and need not wait.
        """
        async with self._database.connection() as connection:
            row = await (
                await connection.execute(
                    TAKE_OVER,
                    {
                        "owner": owner,
                        "lease": LEASE_SECONDS,
                        "dead": dead_owners,
                        "held": held,
                        "abandoned": abandoned,
                    },
                )
            ).fetchone()
        return Claimed(_run(row), None, more=True) if row else None

    async def owners(self) -> list[str]:
        """Everybody who holds a running Run."""
        async with self._database.connection() as connection:
            rows = await (await connection.execute("select distinct owner from run where state = 'running'")).fetchall()
        return [row["owner"] for row in rows]

    async def renew(self, owner: str, numbers: list[int]) -> list[Renewal]:
        """Make the leases of these Runs longer, as far as they are still this owner's."""
        async with self._database.connection() as connection:
            rows = await (
                await connection.execute(
                    """update run set lease_until = now() + make_interval(secs => %s)
                       where owner = %s and state = 'running' and number = any(%s)
                       returning number, fence, cancelled_by""",
                    (LEASE_SECONDS, owner, numbers),
                )
            ).fetchall()
        return [Renewal(**row) for row in rows]

    async def append(
        self, run: Run, rows: tuple[Evidence, ...], events: tuple[Event, ...] = (), *, use_approvals: bool = False
    ) -> None:
        """Add evidence to a Run that this worker holds.

        Raises: LeaseLost when owner or fence are no longer ours; nothing was written then.
        """
        parameters = {
            **_trail(rows, events),
            "number": run.number,
            "owner": run.owner,
            "fence": run.fence,
            "use": use_approvals,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(APPEND, parameters)).fetchone()
        if row is None or row["number"] is None:
            raise LeaseLost
        self._tally.appended(len(rows))

    async def leave(
        self,
        run: Run,
        state: RunState,
        reason: str | None,
        code: str | None,
        rows: tuple[Evidence, ...],
        events: tuple[Event, ...],
    ) -> Left:
        """End this worker's hold on a Run: close it, mark it unresolved, or give it back to the queue.

        A closed Run frees its targets; one that waits again frees them too; unresolved and queued keep them.

        Raises: LeaseLost when owner or fence are no longer ours; nothing was written then.
        """
        require_transition(RunState.RUNNING, state)
        parameters = {
            **_trail(rows, events),
            "number": run.number,
            "owner": run.owner,
            "fence": run.fence,
            "state": state.value,
            "reason": reason,
            "code": code,
            **(end := _end(rows)),
            "final": state.is_final,
            "free": state.is_final or state is RunState.WAITING,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(LEAVE, parameters)).fetchone()
        if row is None or row["number"] is None:
            raise LeaseLost
        left = {"state": state, "state_reason": reason, "state_code": code, "closed_at": row["closed_at"]}
        if state.is_final:
            left["cancelled_by"] = end["cancelled_by"]
        given_back = run.model_copy(update={**left, "owner": None, "lease_until": None})
        return Left(self._tally.left(given_back, len(rows)), row["more"])

    async def move(
        self,
        connection: Connection,
        run: Run,
        state: RunState,
        reason: str | None,
        code: str | None,
        *,
        rows: tuple[Evidence, ...],
        events: tuple[Event, ...],
    ) -> None:
        """Change a Run that nobody holds, inside the caller's transaction, which read it with `locked`.

        Raises: Stale when it changed meanwhile.
        """
        if state is not run.state:
            require_transition(run.state, state)
        parameters = {
            **_trail(rows, events),
            "number": run.number,
            "state": state.value,
            "old": run.state.value,
            "reason": reason,
            "code": code,
            **_end(rows),
            "final": state.is_final,
            "slots": slots_of(run.plan) if state is RunState.QUEUED else [],
        }
        row = await (await connection.execute(MOVE, parameters)).fetchone()
        if row is None or row["number"] is None:
            msg = f"Run {run.number} changed at the same moment"
            raise Stale(msg, code="run.changed", fix=f"interlock show {run.number}")
        self._tally.moved(run, state, rows)

    async def locked(
        self, connection: Connection, number: int
    ) -> tuple[Run, tuple[Evidence, ...], tuple[Approval, ...]]:
        """A Run with its row locked until the caller's transaction ends. Raises NotFound."""
        run = await self._read(connection, number, suffix=" for update")
        return run, await self._evidence(connection, number), await self._approvals(connection, number)

    async def add_approval(self, connection: Connection, approval: Approval) -> None:
        """Record a verdict. Raises Conflict when this person already spoke on this Run."""
        try:
            await connection.execute(
                """insert into approval (run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at)
                   values (%(run)s, %(digest)s, %(asker)s, %(approver)s, %(roles)s, %(kind)s, %(verdict)s, %(reason)s,
                           %(at)s, %(expires_at)s)""",
                {**approval.model_dump(), "roles": list(approval.roles)},
            )
        except psycopg.errors.UniqueViolation as error:
            msg = f"{approval.approver} has already spoken on Run {approval.run}"
            raise Conflict(msg, code="approval.again", fix=f"interlock show {approval.run}") from error

    async def request_cancel(self, connection: Connection, number: int, by: str) -> None:
        """Ask the worker that holds a Run to stop it; seen at its next beat."""
        await connection.execute("update run set cancelled_by = %s where number = %s", (by, number))

    async def expired(self, limit: int) -> list[int]:
        """Runs whose time to be approved or started is over."""
        async with self._database.connection() as connection:
            rows = await (
                await connection.execute(
                    """select number from run where state = 'waiting' and expires_at <= now()
                       order by number limit %s""",
                    (limit,),
                )
            ).fetchall()
        return [row["number"] for row in rows]

    async def _read(self, connection: Connection, number: int, suffix: str = "") -> Run:
        query = f"select {RUN_COLUMNS} from run where number = %s{suffix}"
        row = await (await connection.execute(query.encode(), (number,))).fetchone()
        if row is None:
            msg = f"there is no Run {number}"
            raise NotFound(msg, code="run.unknown", fix="interlock log")
        return _run(row)

    async def _evidence(self, connection: Connection, number: int) -> tuple[Evidence, ...]:
        rows = await (
            await connection.execute(
                "select run, seq, kind, line, hash from evidence where run = %s order by seq", (number,)
            )
        ).fetchall()
        return tuple(evidence_of(row) for row in rows)

    async def _approvals(self, connection: Connection, number: int) -> tuple[Approval, ...]:
        rows = await (
            await connection.execute(
                """select run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at
                   from approval where run = %s and used_at is null order by id""",
                (number,),
            )
        ).fetchall()
        return tuple(Approval.model_validate(row) for row in rows)


def _recorded(new: NewRun, row: dict[str, Any] | None) -> Run:
    """The Run as the table has it, without reading back what was just sent."""
    if row is None:
        msg = "an insert that returns gave no row"
        raise RuntimeError(msg)
    row.pop("told")
    return Run(
        state_reason=new.state_reason,
        state_code=new.state_code,
        actor=new.actor,
        action=new.plan.action,
        plan=new.plan,
        digest=new.digest,
        decision=new.decision,
        key=new.key,
        reason=new.reason,
        cancelled_by=None,
        undo_of=new.undo_of,
        retry_of=new.retry_of,
        timeout_seconds=new.timeout_seconds,
        traceparent=new.traceparent,
        **{name: RunState(value) if name == "state" else value for name, value in row.items()},
    )


def _new_run_parameters(new: NewRun) -> dict[str, Any]:
    return {
        "number": new.number,
        "state": new.state.value,
        "state_reason": new.state_reason,
        "state_code": new.state_code,
        "actor": new.actor.model_dump_json(),
        "actor_id": new.actor.id,
        "action": new.plan.action,
        "summary": new.plan.summary,
        "risk": new.plan.risk,
        "changes": new.plan.changes,
        "plan": new.plan.model_dump_json(),
        "digest": new.digest,
        "decision": new.decision.model_dump_json(),
        "targets": [target.key for target in new.plan.targets],
        "slots": slots_of(new.plan),
        "key": new.key,
        "ask_digest": new.ask_digest,
        "reason": new.reason,
        "expires": new.expires_seconds,
        "undo_of": new.undo_of,
        "retry_of": new.retry_of,
        "timeout_seconds": new.timeout_seconds,
        "traceparent": new.traceparent,
    }


def event_of(run_number: int, kind: str, actor: Actor, action: str, **data: Any) -> Event:
    """The event that tells of a Run's change of state."""
    body: JsonObject = {"run": run_number, **data}
    return Event(kind=kind, labels={"action": action, "actor": actor.id, "actor_kind": actor.kind}, data=body)

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
from interlock.core.model import JsonObject
from interlock.core.plan import Plan
from interlock.core.run import Run, RunState, require_transition
from interlock.engine.db import Connection, Database

RUN_COLUMNS = """number, state, state_reason, state_code, actor, action, plan, digest, decision, key, reason,
    created_at, due_at, expires_at, closed_at, cancelled_by, undo_of, retry_of, owner, fence, lease_until,
    timeout_seconds"""

_RETURNED = ", ".join(f"run.{column.strip()}" for column in RUN_COLUMNS.split(","))

UNCAPPED = 1_000_000
LEASE_SECONDS = 10.0
BEAT_SECONDS = 2.5

# Rows, their entry for the sealer and their events travel with the change of state in one statement, which is one
# transaction and one round trip. `held` is the CTE that names the Run if, and only if, the change was allowed.
_TRAIL = """
    ev as (insert into evidence (run, seq, kind, line, hash)
           select held.number, e.q, e.k, e.l, e.h
           from held, json_to_recordset(%(rows)s::json) as e (q int, k text, l text, h text)
           returning run, seq),
    un as (insert into unsealed (run, seq) select run, seq from ev),
    happened as (insert into event (kind, labels, data, run)
           select h.k, h.l, h.d, held.number
           from held, json_to_recordset(%(events)s::json) as h (k text, l jsonb, d jsonb))"""


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


@dataclass(frozen=True)
class Caps:
    """How many Runs may run at once for one actor and for one action."""

    per_actor: int
    per_action: dict[str, int]


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


def _run(row: dict[str, Any]) -> Run:
    return Run.model_validate(row)


def evidence_of(row: dict[str, Any]) -> Evidence:
    """An evidence row as it came from the table."""
    return Evidence(run=row["run"], seq=row["seq"], kind=EvidenceKind(row["kind"]), line=row["line"], hash=row["hash"])


class RunStore:
    """Reads and writes Runs; every write of a running Run names its owner and fence."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            row = await (await connection.execute(_LOOK, parameters)).fetchone()
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
            row = await (await connection.execute(f"select {_FREEZES} as freezes".encode())).fetchone()
        return tuple(Freeze.model_validate(freeze) for freeze in row["freezes"])  # type: ignore[index]

    async def insert(
        self,
        new: NewRun,
        rows: tuple[Evidence, ...],
        events: tuple[Event, ...],
        approvals: tuple[Approval, ...],
        *,
        claim_for: str | None,
        caps: Caps | None,
    ) -> Run:
        """Record an ask in one transaction: Run, evidence, targets, approvals, outbox.

        A queued Run is claimed at once for `claim_for` when no earlier open Run has its targets and the caps allow.

        Returns: the Run as recorded, which is `running` when it was claimed.
        Raises: Conflict `run.key_taken` when the actor used the key meanwhile.
        """
        parameters = {
            **_trail(rows, events),
            **_new_run_parameters(new),
            "owner": claim_for if new.state is RunState.QUEUED else None,
            "lease": LEASE_SECONDS,
            "cap_actor": caps.per_actor if caps else 0,
            "cap_action": caps.per_action.get(new.plan.action, UNCAPPED) if caps else 0,
            "approvals": Jsonb([approval.model_dump(mode="json") for approval in approvals]),
        }
        for attempt in range(2):
            try:
                async with self._database.connection() as connection:
                    row = await (await connection.execute(_INSERT, parameters)).fetchone()
                return _recorded(new, row)
            except psycopg.errors.UniqueViolation as error:
                if error.diag.constraint_name == "run_key":
                    msg = f"the key {new.key!r} was used for another ask at the same moment"
                    raise Conflict(msg, code="run.key_taken") from error
                if error.diag.constraint_name != "run_target_held" or attempt:
                    raise
                # Another Run took the target between our look and our write: then this one queues behind it.
                parameters["owner"] = None
        msg = "unreachable: the second attempt either returns or raises"
        raise RuntimeError(msg)

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
            "capped": list(caps.per_action),
            "cap_actions": list(caps.per_action.values()),
        }
        try:
            async with self._database.connection() as connection:
                row = await (await connection.execute(_CLAIM, parameters)).fetchone()
        except psycopg.errors.UniqueViolation:
            return None
        if row is None:
            return None
        more, rows = row.pop("more"), row.pop("rows")
        run = _run(row)
        evidence = rows and tuple(evidence_of({"run": run.number, **each}) for each in rows)
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
                    _TAKE_OVER,
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
            row = await (await connection.execute(_APPEND, parameters)).fetchone()
        if row is None or row["number"] is None:
            raise LeaseLost

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
            "final": state.is_final,
            "free": state.is_final or state is RunState.WAITING,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(_LEAVE, parameters)).fetchone()
        if row is None or row["number"] is None:
            raise LeaseLost
        left = {"state": state, "state_reason": reason, "state_code": code, "closed_at": row["closed_at"]}
        return Left(run.model_copy(update={**left, "owner": None, "lease_until": None}), row["more"])

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
            "final": state.is_final,
            "slots": slots_of(run.plan) if state is RunState.QUEUED else [],
        }
        row = await (await connection.execute(_MOVE, parameters)).fetchone()
        if row is None or row["number"] is None:
            msg = f"Run {run.number} changed at the same moment"
            raise Stale(msg, code="run.changed", fix=f"interlock show {run.number}")

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
            raise Conflict(msg, code="approval.again") from error

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
        "final": new.state.is_final,
        "undo_of": new.undo_of,
        "retry_of": new.retry_of,
        "timeout_seconds": new.timeout_seconds,
    }


def event_of(run_number: int, kind: str, actor: Actor, action: str, **data: Any) -> Event:
    """The event that tells of a Run's change of state."""
    body: JsonObject = {"run": run_number, **data}
    return Event(kind=kind, labels={"action": action, "actor": actor.id, "actor_kind": actor.kind}, data=body)


_FREEZES = """(select coalesce(jsonb_agg(jsonb_build_object('scope', scope, 'pattern', pattern, 'reason', reason,
        'set_by', set_by, 'until', until)), '[]')
    from change_freeze where lifted_at is null and (until is null or until > now()))"""

_REFUSED = """(select max(number) from run where state = 'denied' and actor_id = %(actor)s and digest = %(digest)s
        and closed_at > now() - make_interval(mins => %(minutes)s) and state_code = '{code}')"""

_LOOK = f"""
select case when %(take)s and not exists (select 1 from run where state = 'denied' and actor_id = %(actor)s
            and digest = %(digest)s and closed_at > now() - make_interval(mins => %(minutes)s))
        then nextval('run_number') end as number,
    (select number from run where actor_id = %(actor)s and key = %(key)s) as same_key,
    {_REFUSED.format(code="denied.person")} as refused,
    {_REFUSED.format(code="denied.policy")} as policy_refused,
    (select count(*) from (select 1 from run where state in ('waiting', 'queued', 'running', 'unresolved')
        limit %(open_max)s) as bounded) as open_count,
    (select count(*) from run where state = 'waiting' and actor_id = %(actor)s) as waiting_count,
    {_FREEZES} as freezes
"""

_INSERT = f"""
with free as (
    select %(owner)s::text is not null
        and not exists (select 1 from run_target where target = any(%(slots)s::text[]))
        and (select count(*) from run where state = 'running' and actor_id = %(actor_id)s) < %(cap_actor)s
        and (select count(*) from run where state = 'running' and action = %(action)s) < %(cap_action)s as claimed),
    held as (insert into run (number, state, state_reason, state_code, actor, actor_id, action, summary, risk,
            changes, plan, digest, decision, targets, key, ask_digest, reason, expires_at, closed_at, undo_of,
            retry_of, owner, fence,
            lease_until, timeout_seconds)
        select %(number)s, case when claimed then 'running' else %(state)s end, %(state_reason)s, %(state_code)s,
            %(actor)s::jsonb,
            %(actor_id)s, %(action)s, %(summary)s, %(risk)s, %(changes)s, %(plan)s::jsonb, %(digest)s,
            %(decision)s::jsonb, %(targets)s::text[], %(key)s, %(ask_digest)s, %(reason)s,
            now() + make_interval(secs => %(expires)s), case when %(final)s then now() end, %(undo_of)s, %(retry_of)s,
            case when claimed then %(owner)s::text end, claimed::int,
            case when claimed then now() + make_interval(secs => %(lease)s) end, %(timeout_seconds)s
        from free returning number, state, created_at, due_at, expires_at, closed_at, owner, fence, lease_until),
    slot as (insert into run_target (target, run, holding)
        select target, number, state = 'running' from held, unnest(%(slots)s::text[]) as target
        where state in ('queued', 'running')),
    verdict as (insert into approval (run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at)
        select run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at
        from jsonb_to_recordset(%(approvals)s) as v (run bigint, digest text, asker text, approver text, roles text[],
            kind text, verdict boolean, reason text, at timestamptz, expires_at timestamptz)),
    {_TRAIL},
    told as (select pg_notify('interlock_queued', number::text) from held where state = 'queued')
select number, state, created_at, due_at, expires_at, closed_at, owner, fence, lease_until,
    (select count(*) from told) as told
from held
"""

_MORE = """exists (select 1 from run other
    where other.state = 'queued' and other.due_at <= now() and other.number <> {but}) as more"""

# The evidence is as old as the snapshot of the statement, while the row that was locked may be newer. Where nobody held
# the Run in between (nobody else writes evidence of a queued one) the fence has not risen, and the evidence is whole.
_CLAIM = """
with head as (
    select r.number, r.fence from run r
    where r.state = 'queued' and r.due_at <= now()
        and not exists (
            select 1 from run_target mine join run_target other on other.target = mine.target and other.run <> mine.run
            where mine.run = r.number and (other.holding or (other.run < mine.run and not mine.holding)))
        and (select count(*) from run busy where busy.state = 'running' and busy.actor_id = r.actor_id) < %(cap_actor)s
        and not exists (
            select 1 from unnest(%(capped)s::text[], %(cap_actions)s::int[]) as cap (action, runs_max)
            where cap.action = r.action and cap.runs_max <=
                (select count(*) from run busy where busy.state = 'running' and busy.action = r.action))
    order by r.due_at, r.number limit 1 for update of r skip locked),
    slot as (update run_target set holding = true from head where run_target.run = head.number and not holding)
update run set state = 'running', state_reason = null, state_code = null, owner = %(owner)s, fence = run.fence + 1,
    lease_until = now() + make_interval(secs => %(lease)s)
from head where run.number = head.number and run.state = 'queued'
returning {columns}, {more},
    case when head.fence = (select seen.fence from run seen where seen.number = head.number) then
        (select json_agg(json_build_object('seq', e.seq, 'kind', e.kind, 'line', e.line, 'hash', e.hash) order by e.seq)
        from evidence e where e.run = head.number) end as rows
""".format(columns=_RETURNED, more=_MORE.format(but="head.number"))

_TAKE_OVER = """
with head as (
    select number from run
    where state = 'running' and number <> all (%(held)s::bigint[])
        and (lease_until < now() or owner = any(%(dead)s::text[])
            or (owner = %(owner)s and number = any(%(abandoned)s::bigint[])))
    order by number limit 1 for update skip locked)
update run set owner = %(owner)s, fence = fence + 1, lease_until = now() + make_interval(secs => %(lease)s)
from head where run.number = head.number
returning """ + _RETURNED

_HELD = """held as (select number from run
    where number = %(number)s and owner = %(owner)s and fence = %(fence)s and state = 'running' for update)"""

_APPEND = f"""
with {_HELD},
    used as (update approval set used_at = now() from held where %(use)s and run = held.number and used_at is null),
    {_TRAIL}
select number from held
"""

_LEAVE = f"""
with held as (update run set state = %(state)s, state_reason = %(reason)s, state_code = %(code)s,
        owner = null, lease_until = null,
        closed_at = case when %(final)s then now() end
    where number = %(number)s and owner = %(owner)s and fence = %(fence)s and state = 'running'
    returning number, closed_at),
    freed as (delete from run_target using held where run = held.number and %(free)s returning target),
    {_TRAIL}
select number, closed_at, (select pg_notify('interlock_queued', '') where exists (
    select 1 from freed join run_target later on later.target = freed.target and later.run <> %(number)s)),
    {_MORE.format(but="held.number")}
from held
"""

_MOVE = f"""
with held as (update run set state = %(state)s, state_reason = %(reason)s, state_code = %(code)s, due_at = now(),
        closed_at = case when %(final)s then now() end
    where number = %(number)s and state = %(old)s returning number),
    freed as (delete from run_target using held where run = held.number and %(final)s returning target),
    slot as (insert into run_target (target, run)
        select target, number from held, unnest(%(slots)s::text[]) as target on conflict do nothing),
    {_TRAIL}
select number, case when %(state)s = 'queued' then pg_notify('interlock_queued', number::text) end from held
"""

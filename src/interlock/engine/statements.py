"""The statements that move Runs: each is one transaction and one round trip, and names owner and fence."""

from __future__ import annotations

RUN_COLUMNS = """number, state, state_reason, state_code, actor, action, plan, digest, decision, key, reason,
    created_at, due_at, expires_at, closed_at, cancelled_by, undo_of, retry_of, owner, fence, lease_until,
    timeout_seconds, traceparent"""

RETURNED = ", ".join(f"run.{column.strip()}" for column in RUN_COLUMNS.split(","))

# Rows, their entry for the sealer and their events travel with the change of state in one statement, which is one
# transaction and one round trip. `held` is the CTE that names the Run if, and only if, the change was allowed.
TRAIL = """
    ev as (insert into evidence (run, seq, kind, line, hash)
           select held.number, e.q, e.k, e.l, e.h
           from held, json_to_recordset(%(rows)s::json) as e (q int, k text, l text, h text)
           returning run, seq),
    un as (insert into unsealed (run, seq) select run, seq from ev),
    happened as (insert into event (kind, labels, data, run)
           select h.k, h.l, h.d, held.number
           from held, json_to_recordset(%(events)s::json) as h (k text, l jsonb, d jsonb))"""

FREEZES = """(select coalesce(jsonb_agg(jsonb_build_object('scope', scope, 'pattern', pattern, 'reason', reason,
        'set_by', set_by, 'until', until)), '[]')
    from change_freeze where lifted_at is null and (until is null or until > now()))"""

CIRCUMSTANCES = f"""
select (select coalesce(jsonb_agg(to_jsonb(a) - '{{id,used_at}}'::text[] order by a.id), '[]')
        from approval a where a.run = %(number)s and a.used_at is null) as approvals,
    {FREEZES} as freezes
"""

# Where the Run is claimed with its record, `begun_rows` and `begun_events` say besides that its first step begins.
ASKED = TRAIL.replace("%(rows)s", "case when held.state = 'running' then %(begun_rows)s else %(rows)s end").replace(
    "%(events)s", "case when held.state = 'running' then %(begun_events)s else %(events)s end"
)

LOOK = f"""
with denied as materialized (
    select max(number) filter (where state_code = 'denied.person') as by_person,
        max(number) filter (where state_code = 'denied.policy') as by_policy, count(*) as times
    from run where state = 'denied' and actor_id = %(actor)s and digest = %(digest)s
        and closed_at > now() - make_interval(mins => %(minutes)s))
select case when %(take)s and denied.times = 0 then nextval('run_number') end as number,
    (select number from run where actor_id = %(actor)s and key = %(key)s) as same_key,
    denied.by_person as refused,
    denied.by_policy as policy_refused,
    (select count(*) from (select 1 from run where state in ('waiting', 'queued', 'running', 'unresolved')
        limit %(open_max)s) as bounded) as open_count,
    (select count(*) from run where state = 'waiting' and actor_id = %(actor)s) as waiting_count,
    {FREEZES} as freezes
from denied
"""

INSERT = f"""
with free as materialized (
    select %(owner)s::text is not null
        and not exists (select 1 from run_target where target = any(%(slots)s::text[]))
        and (select count(*) from run where state = 'running' and actor_id = %(actor_id)s) < %(cap_actor)s
        and (%(actor_id)s not like 'agent:%%'
            or (select count(*) from run where state = 'running' and actor_id like 'agent:%%') < %(cap_agents)s)
        and (select count(*) from run where state = 'running' and action = %(action)s) < %(cap_action)s as claimed),
    held as (insert into run (number, state, state_reason, state_code, actor, actor_id, action, summary, risk,
            changes, plan, digest, decision, targets, key, ask_digest, reason, created_at, expires_at, closed_at,
            undo_of, retry_of, owner, fence,
            lease_until, timeout_seconds, traceparent)
        select %(number)s, case when claimed then 'running' else %(state)s end, %(state_reason)s, %(state_code)s,
            %(actor)s::jsonb,
            %(actor_id)s, %(action)s, %(summary)s, %(risk)s, %(changes)s, %(plan)s::jsonb, %(digest)s,
            %(decision)s::jsonb, %(targets)s::text[], %(key)s, %(ask_digest)s, %(reason)s,
            %(created_at)s, now() + make_interval(secs => %(expires)s), %(closed_at)s::timestamptz, %(undo_of)s,
            %(retry_of)s,
            case when claimed then %(owner)s::text end, claimed::int,
            case when claimed then now() + make_interval(secs => %(lease)s) end, %(timeout_seconds)s,
            %(traceparent)s
        from free
        where %(waiting_max)s::int is null
            or (select count(*) from run where state = 'waiting' and actor_id = %(actor_id)s) < %(waiting_max)s
        returning number, state, created_at, due_at, expires_at, closed_at, owner, fence, lease_until),
    slot as (insert into run_target (target, run, holding)
        select target, number, state = 'running' from held, unnest(%(slots)s::text[]) as target
        where state in ('queued', 'running')),
    verdict as (insert into approval (run, digest, asker, approver, roles, kind, verdict, reason, at, expires_at,
            used_at)
        select v.run, v.digest, v.asker, v.approver, v.roles, v.kind, v.verdict, v.reason, v.at, v.expires_at,
            case when %(begun)s and held.state = 'running' then now() end
        from held, jsonb_to_recordset(%(approvals)s) as v (run bigint, digest text, asker text, approver text,
            roles text[], kind text, verdict boolean, reason text, at timestamptz, expires_at timestamptz)),
    {ASKED},
    told as (select pg_notify('interlock_queued', number::text) from held where state = 'queued' and %(tell)s)
select number, state, created_at, due_at, expires_at, closed_at, owner, fence, lease_until,
    (select count(*) from told) as told
from held
"""

# Asks of one agent that will wait are counted one after another: each must see the one before it.
ONE_BY_ONE = "select pg_advisory_xact_lock(hashtextextended(%(actor_id)s, 0))"

MORE = """exists (select 1 from run other
    where other.state = 'queued' and other.due_at <= now() and other.number <> {but}) as more"""

# `(select 1 ... limit 1) is null` says what `not exists` says, but is never turned into a join with the whole backlog:
# the queue is walked in order, and each Run looked at until one may start.
# The evidence is as old as the snapshot of the statement, while the row that was locked may be newer. Where nobody held
# the Run in between (nobody else writes evidence of a queued one) the fence has not risen, and the evidence is whole.
#
# The commit does not wait for the disk: a claim that a crash forgets leaves the Run queued. Before the first effect
# `started` is written under owner and fence; that commit waits, and takes the claim to the disk with it.
CLAIM = """
with head as (
    select r.number, r.fence from run r
    where r.state = 'queued' and r.due_at <= now()
        and (
            select 1 from run_target mine join run_target other on other.target = mine.target and other.run <> mine.run
            where mine.run = r.number and (other.holding or (other.run < mine.run and not mine.holding))
            limit 1) is null
        and (select count(*) from run busy where busy.state = 'running' and busy.actor_id = r.actor_id) < %(cap_actor)s
        and (r.actor_id not like 'agent:%%'
            or (select count(*) from run busy where busy.state = 'running' and busy.actor_id like 'agent:%%')
                < %(cap_agents)s)
        and (
            select 1 from unnest(%(capped)s::text[], %(cap_actions)s::int[]) as cap (action, runs_max)
            where cap.action = r.action and cap.runs_max <=
                (select count(*) from run busy where busy.state = 'running' and busy.action = r.action)
            limit 1) is null
    order by r.due_at, r.number limit 1 for update of r skip locked),
    slot as (update run_target set holding = true from head where run_target.run = head.number and not holding)
update run set state = 'running', state_reason = null, state_code = null, owner = %(owner)s, fence = run.fence + 1,
    lease_until = now() + make_interval(secs => %(lease)s)
from head where run.number = head.number and run.state = 'queued'
returning {columns}, {more}, set_config('synchronous_commit', 'off', true),
    case when head.fence = (select seen.fence from run seen where seen.number = head.number) then
        (select json_agg(json_build_object('seq', e.seq, 'kind', e.kind, 'line', e.line, 'hash', e.hash) order by e.seq)
        from evidence e where e.run = head.number) end as rows
""".format(columns=RETURNED, more=MORE.format(but="head.number"))

TAKE_OVER = (
    """
with head as (
    select number from run
    where state = 'running' and number <> all (%(held)s::bigint[])
        and (lease_until < now() or owner = any(%(dead)s::text[])
            or (owner = %(owner)s and number = any(%(abandoned)s::bigint[])))
    order by number limit 1 for update skip locked)
update run set owner = %(owner)s, fence = fence + 1, lease_until = now() + make_interval(secs => %(lease)s)
from head where run.number = head.number
returning """
    + RETURNED
)

HELD = """held as (select number from run
    where number = %(number)s and owner = %(owner)s and fence = %(fence)s and state = 'running' for update)"""

APPEND = f"""
with {HELD},
    used as (update approval set used_at = now() from held where %(use)s and run = held.number and used_at is null),
    {TRAIL}
select number from held
"""

LEAVE = f"""
with held as (update run set state = %(state)s, state_reason = %(reason)s, state_code = %(code)s,
        owner = null, lease_until = null, closed_at = %(closed_at)s::timestamptz,
        cancelled_by = case when %(final)s then %(cancelled_by)s else cancelled_by end
    where number = %(number)s and owner = %(owner)s and fence = %(fence)s and state = 'running'
    returning number, closed_at),
    freed as (delete from run_target using held where run = held.number and %(free)s returning target),
    {TRAIL}
select number, closed_at, (select pg_notify('interlock_queued', '') where exists (
    select 1 from freed join run_target later on later.target = freed.target and later.run <> %(number)s)),
    {MORE.format(but="held.number")}
from held
"""

# What a person decides about an unresolved Run stands above an earlier wish to cancel it.
MOVE = f"""
with held as (update run set state = %(state)s, state_reason = %(reason)s, state_code = %(code)s, due_at = now(),
        closed_at = %(closed_at)s::timestamptz,
        cancelled_by = case when %(final)s then %(cancelled_by)s when %(old)s <> 'unresolved' then cancelled_by end
    where number = %(number)s and state = %(old)s returning number),
    freed as (delete from run_target using held where run = held.number and %(final)s returning target),
    slot as (insert into run_target (target, run)
        select target, number from held, unnest(%(slots)s::text[]) as target on conflict do nothing),
    {TRAIL}
select number, case when %(state)s = 'queued' then pg_notify('interlock_queued', number::text) end from held
"""

-- One row an ask, from beginning to end. The row is the queue entry too: state, owner, fence and lease stand in it.
create table run (
    number bigint primary key,
    state text not null check (state in ('waiting', 'queued', 'running', 'unresolved', 'succeeded', 'failed', 'undone',
                                         'denied', 'stale', 'expired', 'cancelled')),
    state_reason text,
    state_code text,
    actor jsonb not null,
    actor_id text not null,
    action text not null,
    summary text not null,
    risk text not null,
    changes boolean not null,
    plan jsonb not null,
    digest text not null,
    decision jsonb not null,
    targets text[] not null,
    key text,
    ask_digest text not null,
    reason text,
    created_at timestamptz not null default now(),
    due_at timestamptz not null default now(),
    expires_at timestamptz,
    closed_at timestamptz,
    cancelled_by text,
    undo_of bigint references run (number),
    retry_of bigint references run (number),
    owner text,
    fence integer not null default 0,
    lease_until timestamptz,
    timeout_seconds double precision not null,
    check ((state = 'running') = (owner is not null and lease_until is not null))
);
create sequence run_number as bigint owned by run.number;
create unique index run_key on run (actor_id, key) where key is not null;
create index run_queued on run (due_at, number) where state = 'queued';
create index run_running on run (owner) where state = 'running';
create index run_open on run (number) where state in ('waiting', 'queued', 'running', 'unresolved');
create index run_waiting_of on run (actor_id) where state = 'waiting';
create index run_denied on run (actor_id, digest, closed_at) where state = 'denied';
create index run_state on run (state, number desc);

-- A row for each target of each Run that is queued, running or unresolved. The unique index is the promise that one
-- target is never in two hands.
create table run_target (
    target text not null,
    run bigint not null references run (number),
    holding boolean not null default false,
    primary key (target, run)
);
create unique index run_target_held on run_target (target) where holding;
create index run_target_run on run_target (run);

create table evidence (
    run bigint not null,
    seq integer not null check (seq >= 1),
    kind text not null,
    line text not null,
    hash text not null,
    primary key (run, seq)
);

-- Evidence that no checkpoint covers yet. xid lets the sealer stop before any transaction that may still commit.
create table unsealed (
    run bigint not null,
    seq integer not null,
    xid xid8 not null default pg_current_xact_id(),
    primary key (run, seq)
);
create index unsealed_xid on unsealed (xid);

create table leaf (
    index bigint primary key check (index >= 0),
    run bigint not null,
    seq integer not null,
    unique (run, seq)
);

create table checkpoint (
    size bigint primary key check (size >= 0),
    root text not null,
    note text not null,
    frontier jsonb not null,
    at timestamptz not null default now(),
    epoch integer not null
);

create table approval (
    id bigint generated always as identity primary key,
    run bigint not null references run (number),
    digest text not null,
    asker text not null,
    approver text not null,
    roles text[] not null,
    kind text not null check (kind in ('approval', 'confirmation')),
    verdict boolean not null,
    reason text,
    at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz
);
create index approval_run on approval (run);
create unique index approval_once on approval (run, approver) where kind = 'approval';

create table event (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    kind text not null,
    labels jsonb not null,
    data jsonb not null,
    run bigint
);
create index event_at on event (at);

create table change_freeze (
    id bigint generated always as identity primary key,
    scope text not null check (scope in ('targets', 'agents', 'glass')),
    pattern text not null,
    reason text not null,
    set_by text not null,
    set_at timestamptz not null default now(),
    until timestamptz,
    lifted_by text,
    lifted_at timestamptz,
    run bigint not null,
    unique (run, scope, pattern)
);
create index change_freeze_active on change_freeze (id) where lifted_at is null;

create table adopted (
    name text primary key,
    program jsonb not null,
    path text not null,
    sha256 text not null,
    adopted_by text not null,
    adopted_at timestamptz not null default now(),
    run bigint not null
);

-- What Runs print, in sealed pieces: written while they run, pruned by retention.
create table output (
    run bigint not null,
    seq integer not null,
    at timestamptz not null default now(),
    bytes integer not null,
    body bytea not null,
    primary key (run, seq)
);
create index output_at on output (at);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: % is refused', tg_table_name, tg_op using errcode = 'insufficient_privilege';
end $$;

create trigger append_only before update or delete on evidence for each row execute function refuse_change();
create trigger append_only_whole before truncate on evidence for each statement execute function refuse_change();
create trigger append_only before update or delete on leaf for each row execute function refuse_change();
create trigger append_only_whole before truncate on leaf for each statement execute function refuse_change();
create trigger append_only before update or delete on checkpoint for each row execute function refuse_change();
create trigger append_only_whole before truncate on checkpoint for each statement execute function refuse_change();

-- One row a schedule: those that interlock.yaml declares, and one-offs, which hold all they need. Every instant up to
-- cursor_at was dealt with; those up to skip_until fell into a pause.
create table schedule (
    name text primary key,
    one_off boolean not null,
    spec jsonb not null,
    timing_digest text not null,
    declared boolean not null default true,
    cursor_at timestamptz not null,
    skip_until timestamptz,
    missed bigint not null default 0,
    actor jsonb,
    paused_by text,
    paused_reason text,
    paused_at timestamptz,
    paused_until timestamptz,
    paused_run bigint,
    run bigint,
    check (one_off = (actor is not null)),
    check ((paused_by is null) = (paused_at is null))
);

-- One row an instant that came; many missed ones at a time share one row, the newest's. The key of the row is the key of
-- the ask: whoever records the same instant again finds it here.
create table schedule_instant (
    schedule text not null references schedule (name),
    instant timestamptz not null,
    due_at timestamptz not null,
    state text not null check (state in ('due', 'queued', 'submitted', 'succeeded', 'failed', 'denied', 'missed',
                                         'skipped', 'cancelled')),
    actor jsonb not null,
    ask jsonb not null,
    count integer not null default 1 check (count >= 1),
    attempts integer not null default 0,
    retry_at timestamptz,
    run bigint,
    reason text,
    code text,
    closed_at timestamptz,
    primary key (schedule, instant),
    check ((state in ('due', 'queued', 'submitted')) = (closed_at is null)),
    check (state <> 'submitted' or run is not null)
);
create index schedule_instant_open on schedule_instant (schedule) where closed_at is null;
create index schedule_instant_closed on schedule_instant (closed_at) where closed_at is not null;

-- One row a release. `spec` is the workload as it was declared when the release was planned. `epoch` rises with every
-- state and step, `settled` is the last one whose effects all happened; both together say what is still to be done.
create table releases (
    number bigint generated always as identity primary key,
    name text not null,
    kind text not null check (kind in ('service', 'batch')),
    state text not null check (state in ('preparing', 'shadow', 'canary', 'watching', 'paused', 'frozen', 'going_back',
                                         'released', 'rolled_back', 'failed', 'aborted')),
    stable text,
    candidate text not null,
    spec jsonb not null,
    identities jsonb not null default '{}',
    salt text not null,
    snapshot jsonb not null default '{}',
    step integer not null default -1,
    epoch integer not null default 0,
    settled integer not null default -1,
    attempt integer not null default 0,
    watched_seconds double precision not null default 0,
    looked_at timestamptz not null,
    was text,
    goal text,
    cause text,
    reason text,
    evidence jsonb not null default '{}',
    told jsonb not null default '[]',
    started_by text not null,
    run bigint not null,
    created_at timestamptz not null,
    state_at timestamptz not null,
    closed_at timestamptz,
    warm_until timestamptz,
    judge jsonb,
    read_until double precision not null default 0,
    check ((state in ('released', 'rolled_back', 'failed', 'aborted')) = (closed_at is not null)),
    check (settled <= epoch)
);
-- Two releases of one workload at the same time would be two truths.
create unique index releases_active on releases (name) where closed_at is null;
create unique index releases_run on releases (run);
create index releases_name on releases (name, number desc);
create index releases_warm on releases (warm_until) where warm_until is not null;

create table release_timeline (
    id bigint generated always as identity primary key,
    release bigint not null references releases (number),
    at timestamptz not null,
    word text not null,
    text text not null,
    data jsonb not null default '{}',
    run bigint
);
create index release_timeline_release on release_timeline (release, id);

-- What was seen of both versions, about once a second; thinned out where there is much of it.
create table release_ticks (
    release bigint not null references releases (number),
    at_seconds double precision not null,
    data jsonb not null,
    primary key (release, at_seconds)
);

-- The texts of every set that was in force, by their digest. Never changed, so that any of them can be put back.
create table policy_set (
    digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
    sources text not null,
    kept_at timestamptz not null default now()
);

-- The newest row says what is in force; before the first it is what lies on disk. Only ever added to.
create table policy_in_force (
    id bigint generated always as identity primary key,
    digest text not null references policy_set (digest),
    pinned boolean not null,
    run bigint not null,
    set_by text not null,
    set_at timestamptz not null default now()
);

-- What the latest replays came to, for whoever approves the policies that they were made of.
create table policy_replay (
    id bigint generated always as identity primary key,
    digest text not null,
    summary jsonb not null,
    at timestamptz not null default now()
);

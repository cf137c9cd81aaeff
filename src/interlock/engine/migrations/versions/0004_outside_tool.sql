-- What each tool said of itself when a person accepted it. Who accepted what, and when, stays in the Runs.
create table outside_tool (
    server text not null,
    tool text not null,
    digest text not null check (digest ~ '^[0-9a-f]{64}$'),
    description jsonb not null,
    accepted_by text not null,
    accepted_at timestamptz not null default now(),
    run bigint not null,
    primary key (server, tool)
);

-- Bearers' tokens. Of a secret only its SHA-256 is kept; rows stay, because evidence names their ids.
create table token (
    id text primary key check (id ~ '^[a-z2-7]{12}$'),
    name text not null,
    kind text not null check (kind in ('person', 'service', 'agent')),
    actor text not null,
    on_behalf_of text,
    scopes text[] not null,
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_by text,
    revoked_at timestamptz,
    last_used_at timestamptz,
    run bigint not null
);
create index token_created on token (created_at desc);

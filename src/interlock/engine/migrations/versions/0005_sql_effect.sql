-- Effects in guarded databases: the transaction that an effect is, written before that transaction commits there. What
-- became of it is asked of that database. The bodies are blobs, which retention may prune.
create table sql_effect (
    key text primary key,
    run bigint not null,
    database text not null,
    system text not null,
    xid text not null,
    before_sha256 text,
    after_sha256 text,
    rows bigint not null,
    at timestamptz not null default now()
);

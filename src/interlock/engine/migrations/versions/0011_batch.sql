-- One row for each batch job. `document` says which version its invocations get and by which share; `epoch` rises with
-- every change of it, so that of two changes planned at once only one comes to pass.
create table batch_routing (
    workload text primary key,
    epoch integer not null,
    run bigint not null,
    document jsonb not null,
    changed_at timestamptz not null
);

create table batch_comparison (
    run bigint primary key,
    workload text not null,
    stable text not null,
    candidate text not null,
    document jsonb not null,
    at timestamptz not null
);
create index batch_comparison_workload on batch_comparison (workload, run desc);

create table batch_invocation (
    run bigint primary key,
    workload text not null,
    document jsonb not null,
    at timestamptz not null
);
create index batch_invocation_workload on batch_invocation (workload, run desc);
create index batch_invocation_at on batch_invocation (at);

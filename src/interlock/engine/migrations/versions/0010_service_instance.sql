-- One row for each version of a workload that was started here. `spec` holds all that its runtime needs, pinned, so that
-- the same can be started again after interlock.yaml changed. A port belongs to one version that stands.
create table service_instance (
    workload text not null,
    version text not null,
    identity text not null,
    spec jsonb not null,
    port integer not null check (port between 1 and 65535),
    stage text not null check (stage in ('starting', 'running', 'stopping', 'stopped', 'failed')),
    address text not null,
    run bigint not null,
    release bigint,
    reason text,
    started_at timestamptz not null,
    healthy_at timestamptz,
    stopped_at timestamptz,
    primary key (workload, version)
);
create unique index service_instance_port on service_instance (port)
    where stage in ('starting', 'running', 'stopping');

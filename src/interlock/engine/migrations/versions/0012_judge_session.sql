-- One row for each rollout that somebody else drives and that is judged here. `state` and `place` are what the judge knew
-- and until where was read, of one moment; both are dropped when the session ends.
create table judge_session (
    number bigint generated always as identity primary key,
    judge text not null,
    session text not null,
    stable text,
    begun_at timestamptz not null,
    asked_at timestamptz not null,
    ended_at timestamptz,
    ended_because text,
    place jsonb not null default '{}',
    state jsonb,
    judgement jsonb,
    trouble text,
    check ((ended_at is null) = (ended_because is null))
);
create unique index judge_session_open on judge_session (judge, session) where ended_at is null;
create index judge_session_name on judge_session (judge, session, number desc);
create index judge_session_ended on judge_session (ended_at) where ended_at is not null;

-- What lists of Runs are filtered by, each with the state and in the order in which they are shown: the newest of them
-- are found at once, however rare they are and however much happened since.
create index run_actor on run (actor_id, state, number desc);
create index run_action on run (action, state, number desc);
create index run_actor_action on run (actor_id, action, state, number desc);

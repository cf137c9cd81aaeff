-- What lists of Runs are filtered by, each with the state and in the order in which they are shown: the newest of them
-- are found at once, however rare they are and however much happened since. Read backwards, so that the place where a
-- page begins, (state, number), is one place in the index: one that runs up and down at once has no such place.
create index run_actor on run (actor_id, state, number);
create index run_action on run (action, state, number);
create index run_actor_action on run (actor_id, action, state, number);
drop index run_state;
create index run_state on run (state, number);

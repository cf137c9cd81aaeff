-- Who began it (`service:rollouts`). A session that anybody ends forgets its NO-GO for anybody.
alter table judge_session add column begun_by text;

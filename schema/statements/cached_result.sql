-- Results that other runs may use, by their cache keys.

-- name: get
-- What is cached and has not expired. Index: primary key.
select data, data_format
from cached_result
where key = :key and (expiration is null or expiration > :now);

-- name: put
-- The newest takes the place of an older one. Key: key.
insert into cached_result (key, expiration, task_run_id, state_id, data, data_format, created)
values (:key, :expiration, :task_run_id, :state_id, :data, :data_format, :now)
on conflict (key) do update
set expiration = excluded.expiration, task_run_id = excluded.task_run_id,
    state_id = excluded.state_id, data = excluded.data, data_format = excluded.data_format,
    created = excluded.created;

-- name: delete_of_run
-- What a run has cached that was undone. Index: cached_result_by_task_run.
delete from cached_result where task_run_id = :task_run_id;

-- name: delete_expired
-- What nobody can find any more. Index: cached_result_expiring.
delete from cached_result where expiration is not null and expiration <= :now;

-- Task runs. The call of a task is found by (flow run, task key, dynamic key).

-- name: insert
-- A new run in its first states. Nothing when the id is there: a repeat of the same write.
insert into task_run (
    id, flow_run_id, parent_task_run_id, name, task_key, dynamic_key, state_id, state_type,
    state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time,
    next_scheduled_start_time, start_time, end_time, total_run_time, source_hash, tags,
    empirical_policy, created, updated
)
values (
    :id, :flow_run_id, :parent_task_run_id, :name, :task_key, :dynamic_key, :state_id, :state_type,
    :state_name, :state_timestamp, :run_count, :flow_run_run_count, :expected_start_time,
    :next_scheduled_start_time, :start_time, :end_time, :total_run_time, :source_hash, :tags,
    :empirical_policy, :now, :now
)
on conflict (id) do nothing;

-- name: for_transition [sqlite]
-- What the rules read, and the epoch of the flow run, which fences off an owner that lost it.
-- The IMMEDIATE transaction it runs in locks all rows. Index: primary keys.
select task_run.id, task_run.state_id, task_run.state_type, task_run.state_name,
       task_run.state_timestamp, task_run.run_count,
       task_run.expected_start_time, task_run.next_scheduled_start_time, task_run.start_time,
       task_run.end_time, task_run.total_run_time, task_run.empirical_policy, task_run.name,
       task_run.flow_run_run_count, flow_run.run_count as flow_run_attempt, flow_run.epoch
from task_run
left join flow_run on flow_run.id = task_run.flow_run_id
where task_run.id = :id;

-- name: for_transition [postgres]
-- The same, with the task run locked until the transaction ends. The flow run is locked before it
-- and against change: a take-over that is under way is waited for, and one that comes waits.
with owner as (
    select flow_run.id, flow_run.run_count, flow_run.epoch
    from flow_run
    where flow_run.id = (select flow_run_id from task_run where id = :id)
    for share
)
select task_run.id, task_run.state_id, task_run.state_type, task_run.state_name,
       task_run.state_timestamp, task_run.run_count,
       task_run.expected_start_time, task_run.next_scheduled_start_time, task_run.start_time,
       task_run.end_time, task_run.total_run_time, task_run.empirical_policy, task_run.name,
       task_run.flow_run_run_count, owner.run_count as flow_run_attempt, owner.epoch
from task_run
left join owner on owner.id = task_run.flow_run_id
where task_run.id = :id
for update of task_run;

-- name: update_state
-- Index: primary key.
update task_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, run_count = :run_count,
    expected_start_time = :expected_start_time,
    next_scheduled_start_time = :next_scheduled_start_time, start_time = :start_time,
    end_time = :end_time, total_run_time = :total_run_time,
    flow_run_run_count = :flow_run_run_count, updated = :now
where id = :id;

-- name: find_call
-- The record of one call, with what its last state holds. Index: task_run_by_call.
select task_run.id, task_run.state_type, current.data, current.data_format, task_run.source_hash
from task_run
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
where task_run.flow_run_id = :flow_run_id and task_run.task_key = :task_key
      and task_run.dynamic_key = :dynamic_key;

-- name: unfinished_of_flow_run
-- What was running when its process died. Index: task_run_by_flow_run.
select id
from task_run
where flow_run_id = :flow_run_id
      and state_type in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
order by id;

-- name: get_many [sqlite]
-- Runs by id, for people, in the order of the ids. Index: primary key.
select task_run.id, task_run.flow_run_id, task_run.parent_task_run_id, task_run.name,
       task_run.task_key, task_run.dynamic_key, task_run.state_id, task_run.state_type,
       task_run.state_name, task_run.state_timestamp, current.message, current.state_details,
       current.data, current.data_format, task_run.run_count, task_run.expected_start_time,
       task_run.next_scheduled_start_time, task_run.start_time, task_run.end_time,
       task_run.total_run_time, task_run.source_hash, task_run.tags, task_run.created
from json_each(:ids) as wanted
join task_run on task_run.id = unhex(wanted.value, '-')
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select task_run.id, task_run.flow_run_id, task_run.parent_task_run_id, task_run.name,
       task_run.task_key, task_run.dynamic_key, task_run.state_id, task_run.state_type,
       task_run.state_name, task_run.state_timestamp, current.message, current.state_details,
       current.data, current.data_format, task_run.run_count, task_run.expected_start_time,
       task_run.next_scheduled_start_time, task_run.start_time, task_run.end_time,
       task_run.total_run_time, task_run.source_hash, task_run.tags, task_run.created
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join task_run on task_run.id = wanted.value::uuid
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
order by wanted.key;

-- name: get_many_lock [postgres]
-- Before get_many, in a session that was opened for update: the runs stay as they are then read
-- until it ends. In the order of their ids, so that two sessions do not lock crosswise.
-- Index: primary key.
select task_run.id
from jsonb_array_elements_text(:ids) as wanted (value)
join task_run on task_run.id = wanted.value::uuid
order by task_run.id
for update of task_run;

-- Finding: see flow_run.sql.

-- name: find_by_flow_run
-- Index: task_run_by_flow_run.
select id
from task_run
where flow_run_id = :flow_run_id and id < :before
      and (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
order by id desc
limit :limit;

-- name: find_by_state
-- Index: task_run_not_completed.
select id
from task_run
where state_type = :state_type and state_type <> 'COMPLETED' and id < :before
      and (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_name = :state_name or :state_name is null)
order by id desc
limit :limit;

-- name: find_newest
-- Index: primary key.
select id
from task_run
where id < :before
      and (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
order by id desc
limit :limit;

-- name: count_by_flow_run
-- How many. Index: task_run_by_flow_run.
select count(*)
from task_run
where flow_run_id = :flow_run_id
      and (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null);

-- name: count_by_state
-- How many. Index: task_run_not_completed.
select count(*)
from task_run
where state_type = :state_type and state_type <> 'COMPLETED'
      and (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_name = :state_name or :state_name is null);

-- name: count_newest
-- How many. Index: primary key. A count over all reads all.
-- scan: every run counts
select count(*)
from task_run
where (name = :name or :name is null)
      and (task_key = :task_key or :task_key is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null);

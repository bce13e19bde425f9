-- States of task runs: append-only, clustered by run.

-- name: insert
-- Nothing when it is there: a repeat of the same write. Key: task_run_id, timestamp.
insert into task_run_state (
    task_run_id, timestamp, id, type, name, message, state_details, data, data_format
)
values (
    :task_run_id, :timestamp, :id, :type, :name, :message, :state_details, :data, :data_format
)
on conflict (task_run_id, timestamp) do nothing;

-- name: insert_begun
-- PENDING and RUNNING of a new run, of which there is nothing more to say. Key: task_run_id, timestamp.
insert into task_run_state (task_run_id, timestamp, id, type, name)
values
    (:task_run_id, :pending_timestamp, :pending_id, 'PENDING', :pending_name),
    (:task_run_id, :running_timestamp, :running_id, 'RUNNING', :running_name)
on conflict (task_run_id, timestamp) do nothing;

-- name: insert_whole
-- The same, and the state that it has come to. Key: task_run_id, timestamp.
insert into task_run_state (
    task_run_id, timestamp, id, type, name, message, state_details, data, data_format
)
values
    (:task_run_id, :pending_timestamp, :pending_id, 'PENDING', :pending_name, null, null, null, null),
    (:task_run_id, :running_timestamp, :running_id, 'RUNNING', :running_name, null, null, null, null),
    (:task_run_id, :timestamp, :id, :type, :name, :message, :state_details, :data, :data_format)
on conflict (task_run_id, timestamp) do nothing;

-- name: insert_ended
-- PENDING of a new run and its end, as of one that takes a cached result. Key: task_run_id, timestamp.
insert into task_run_state (
    task_run_id, timestamp, id, type, name, message, state_details, data, data_format
)
values
    (:task_run_id, :pending_timestamp, :pending_id, 'PENDING', :pending_name, null, null, null, null),
    (:task_run_id, :timestamp, :id, :type, :name, :message, :state_details, :data, :data_format)
on conflict (task_run_id, timestamp) do nothing;

-- name: details
-- What one state says beyond its name, and how its data are encoded. Not joined to the run that a
-- transition locks: after waiting for the lock, Postgres would show the run as it is and its states
-- as they were. Index: primary key.
select state_details, data_format
from task_run_state
where task_run_id = :task_run_id and timestamp = :timestamp;

-- name: history
-- All states of a run, oldest first. Index: primary key.
select id, type, name, timestamp, message, state_details, data, data_format
from task_run_state
where task_run_id = :task_run_id
order by timestamp;

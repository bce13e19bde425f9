-- States of flow runs: append-only, clustered by run.

-- name: insert
-- Nothing when it is there: a repeat of the same write. Key: flow_run_id, timestamp.
insert into flow_run_state (
    flow_run_id, timestamp, id, type, name, message, state_details, data, data_format
)
values (
    :flow_run_id, :timestamp, :id, :type, :name, :message, :state_details, :data, :data_format
)
on conflict (flow_run_id, timestamp) do nothing;

-- name: insert_begun
-- PENDING and RUNNING of a new run, of which there is nothing more to say. Key: flow_run_id, timestamp.
insert into flow_run_state (flow_run_id, timestamp, id, type, name)
values
    (:flow_run_id, :pending_timestamp, :pending_id, 'PENDING', :pending_name),
    (:flow_run_id, :running_timestamp, :running_id, 'RUNNING', :running_name)
on conflict (flow_run_id, timestamp) do nothing;

-- name: details
-- What one state says beyond its name, and how its data are encoded. Not joined to the run that a
-- transition locks: after waiting for the lock, Postgres would show the run as it is and its states
-- as they were. Index: primary key.
select state_details, data_format
from flow_run_state
where flow_run_id = :flow_run_id and timestamp = :timestamp;

-- name: history
-- All states of a run, oldest first. Index: primary key.
select id, type, name, timestamp, message, state_details, data, data_format
from flow_run_state
where flow_run_id = :flow_run_id
order by timestamp;

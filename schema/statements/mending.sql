-- What `embedded-orch db repair` changes, for each thing that `db check` finds and that can be mended
-- without guessing. The history of a run is taken for the truth, since it is only ever appended to.

-- name: flow_run_from_history
-- Index: primary key.
update flow_run
set state_id = last.id, state_type = last.type, state_name = last.name,
    state_timestamp = last.timestamp, updated = :now
from flow_run_state as last
where flow_run.id = :flow_run_id and last.flow_run_id = :flow_run_id
      and last.timestamp = (
          select max(timestamp) from flow_run_state where flow_run_id = :flow_run_id
      );

-- name: task_run_from_history
-- Index: primary key.
update task_run
set state_id = last.id, state_type = last.type, state_name = last.name,
    state_timestamp = last.timestamp
from task_run_state as last
where task_run.id = :task_run_id and last.task_run_id = :task_run_id
      and last.timestamp = (
          select max(timestamp) from task_run_state where task_run_id = :task_run_id
      );

-- name: history_of_flow_run
-- A run without a history gets the state that it is in as its only one. Index: primary key.
insert into flow_run_state (flow_run_id, timestamp, id, type, name, message)
select flow_run.id, flow_run.state_timestamp, flow_run.state_id, flow_run.state_type,
       flow_run.state_name, 'its history was lost'
from flow_run
where flow_run.id = :flow_run_id and flow_run.state_id is not null
      and not exists (select 1 from flow_run_state where flow_run_id = :flow_run_id)
on conflict (flow_run_id, timestamp) do nothing;

-- name: history_of_task_run
-- The same. Index: primary key.
insert into task_run_state (task_run_id, timestamp, id, type, name, message)
select task_run.id, task_run.state_timestamp, task_run.state_id, task_run.state_type,
       task_run.state_name, 'its history was lost'
from task_run
where task_run.id = :task_run_id and task_run.state_id is not null
      and not exists (select 1 from task_run_state where task_run_id = :task_run_id)
on conflict (task_run_id, timestamp) do nothing;

-- name: end_of_flow_run
-- The end of a run is when it came to its state, if that is an end. Index: primary key.
update flow_run
set end_time = case
        when state_type in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') then state_timestamp
    end,
    updated = :now
where id = :flow_run_id;

-- name: end_of_task_run
-- The same. Index: primary key.
update task_run
set end_time = case
        when state_type in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') then state_timestamp
    end
where id = :task_run_id;

-- name: start_of_flow_run
-- A run began no later than it ended. Index: primary key.
update flow_run set start_time = end_time, updated = :now
where id = :flow_run_id and end_time < start_time;

-- name: start_of_task_run
-- The same. Index: primary key.
update task_run set start_time = end_time
where id = :task_run_id and end_time < start_time;

-- name: caller_of_flow_run
-- Nobody called it any more. Index: primary key.
update flow_run set parent_task_run_id = null, updated = :now where id = :flow_run_id;

-- name: default_queue
-- A pool has one of its own queues as its default, the one that is served first. Index:
-- work_queue_by_priority.
update work_pool
set default_queue_id = (
        select work_queue.id from work_queue
        where work_queue.work_pool_id = :work_pool_id
        order by work_queue.priority, work_queue.id
        limit 1
    ),
    updated = :now
where id = :work_pool_id;


-- name: lost_flows
-- The flows that runs name and that are not there. Index: flow_run_by_flow.
-- scan: every run is looked at
select distinct flow_run.flow_id
from flow_run
where not exists (select 1 from flow where flow.id = flow_run.flow_id)
order by flow_run.flow_id
limit :limit;

-- name: delete_flow_run_states
-- States of flow runs that are gone.
-- scan: every state is looked at
delete from flow_run_state
where not exists (select 1 from flow_run where flow_run.id = flow_run_state.flow_run_id);

-- name: delete_task_run_states
-- States of task runs that are gone.
-- scan: every state is looked at
delete from task_run_state
where not exists (select 1 from task_run where task_run.id = task_run_state.task_run_id);

-- name: delete_task_runs
-- Task runs of flow runs that are gone.
delete from task_run
where flow_run_id is not null
      and not exists (select 1 from flow_run where flow_run.id = task_run.flow_run_id);

-- name: delete_inputs
-- Inputs of flow runs that are gone.
delete from flow_run_input
where not exists (select 1 from flow_run where flow_run.id = flow_run_input.flow_run_id);

-- name: delete_waits
-- What flow runs waited for that are gone.
delete from flow_run_wait
where not exists (select 1 from flow_run where flow_run.id = flow_run_wait.flow_run_id);

-- name: delete_owed_hooks
-- Hooks that were owed to flow runs that are gone.
delete from owed_hooks
where not exists (select 1 from flow_run where flow_run.id = owed_hooks.flow_run_id);

-- name: delete_removals
-- Flow runs that were being removed and are gone.
delete from removal
where not exists (select 1 from flow_run where flow_run.id = removal.flow_run_id);

-- name: delete_claims
-- Claims on limits that are gone.
delete from slot_claim
where not exists (select 1 from concurrency_limit as limits where limits.id = slot_claim.limit_id);

-- name: delete_queues
-- Queues of pools that are gone.
-- scan: no run may wait in one
delete from work_queue
where not exists (select 1 from work_pool where work_pool.id = work_queue.work_pool_id);

-- name: delete_deployments
-- Deployments of flows that are gone.
delete from deployment
where not exists (select 1 from flow where flow.id = deployment.flow_id);

-- name: forget_owners
-- Flow runs belong to nobody whose process is gone.
update flow_run set owner_id = null, updated = :now
where owner_id is not null
      and not exists (select 1 from process where process.id = flow_run.owner_id);

-- name: forget_claimers
-- The same for those who called hooks.
update owed_hooks set claimer_id = null
where claimer_id is not null
      and not exists (select 1 from process where process.id = owed_hooks.claimer_id);

-- name: forget_queues_of_runs
-- Flow runs wait in no queue that is gone.
-- scan: every run is looked at
update flow_run set work_queue_id = null, updated = :now
where work_queue_id is not null
      and not exists (select 1 from work_queue where work_queue.id = flow_run.work_queue_id);

-- name: forget_queues_of_deployments
-- The same for deployments.
update deployment set work_queue_id = null, updated = :now
where work_queue_id is not null
      and not exists (select 1 from work_queue where work_queue.id = deployment.work_queue_id);

-- name: forget_default_queues
-- The same for pools.
update work_pool set default_queue_id = null, updated = :now
where default_queue_id is not null
      and not exists (select 1 from work_queue where work_queue.id = work_pool.default_queue_id);

-- name: delete_lock
-- Index: primary key.
delete from cache_lock where key = :key;

-- name: delete_logs
-- Lines of a run that is gone. Index: log_by_flow_run.
delete from log where flow_run_id = :flow_run_id;

-- name: delete_logs_of_task_run
-- The same outside of flows. Index: log_by_task_run.
delete from log where flow_run_id is null and task_run_id = :task_run_id;

-- name: insert_flow
-- A flow in the place of one that is gone. Index: primary key.
insert into flow (id, name, created, updated)
values (:flow_id, :name, :now, :now)
on conflict do nothing;

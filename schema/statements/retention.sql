-- Removing runs that ended long ago, with all that belongs to them. What is removed is chosen by
-- reads; from the transaction on that marks a tree (table removal) nobody can resume it.

-- fragment: no_hooks_to_come
-- No process that was not found dead owes hooks to the end of the flow run: it is about to call them.
not exists (
    select 1
    from owed_hooks
    join process on process.id = coalesce(owed_hooks.claimer_id, flow_run.owner_id)
    where owed_hooks.flow_run_id = flow_run.id and process.ended is null
)

-- name: ended_flow_runs
-- Flow runs that nobody called and that ended in a state before a time, those first that ended first.
-- Index: flow_run_ended.
select id, state_id, end_time
from flow_run
where state_type = :state_type and parent_task_run_id is null and end_time is not null
      and end_time < :end_time_before and (end_time, id) > (:after_end_time, :after_id)
order by end_time, id
limit :limit;

-- name: tree_of
-- A flow run and all that it called, and what they called. A run that has not ended has no end time;
-- one whose hooks are being called is not over. The left join keeps SQLite from reading all runs.
-- The depth is bounded for the sake of a damaged database, in which runs could call each other.
-- Index: task_run_by_flow_run, flow_run_by_parent, primary keys.
with recursive tree (id, depth) as (
    select flow_run.id, 0
    from flow_run
    where flow_run.id = :flow_run_id
    union all
    select child.id, tree.depth + 1
    from tree
    join task_run on task_run.flow_run_id = tree.id
    join flow_run as child on child.parent_task_run_id = task_run.id
    where tree.depth < 1000
)
select flow_run.id, tree.depth, flow_run.state_id,
       flow_run.end_time is not null and
-- include: no_hooks_to_come
       as is_over
from tree
left join flow_run on flow_run.id = tree.id
order by tree.depth, flow_run.id;

-- name: unchanged [sqlite]
-- Those of some runs that are over, in the state in which they were seen. Index: primary keys.
select flow_run.id
from json_each(:runs) as seen
join flow_run on flow_run.id = unhex(seen.value ->> 'id', '-')
where flow_run.state_id = unhex(seen.value ->> 'state_id', '-') and
-- include: no_hooks_to_come
;

-- name: unchanged [postgres]
-- The same, and they stay as they are until the transaction ends. In the order of their ids, so that
-- two processes do not lock crosswise.
select flow_run.id
from jsonb_to_recordset(:runs) as seen (id uuid, state_id uuid)
join flow_run on flow_run.id = seen.id
where flow_run.state_id = seen.state_id and
-- include: no_hooks_to_come
order by flow_run.id
for update of flow_run;

-- name: mark [sqlite]
-- From here on the runs are being removed. Key: flow_run_id.
insert into removal (flow_run_id, depth)
select unhex(seen.value ->> 'id', '-'), seen.value ->> 'depth'
from json_each(:runs) as seen
where true
on conflict (flow_run_id) do nothing;

-- name: mark [postgres]
-- The same.
insert into removal (flow_run_id, depth)
select seen.id, seen.depth
from jsonb_to_recordset(:runs) as seen (id uuid, depth integer)
on conflict (flow_run_id) do nothing;

-- name: next_marked
-- What is removed next, and its owner: those that were called before those that called them.
-- Index: removal_in_order.
select removal.flow_run_id,
       (select flow_run.owner_id from flow_run where flow_run.id = removal.flow_run_id) as owner_id
from removal
order by removal.depth desc, removal.flow_run_id desc
limit 1;

-- name: is_marked
-- Whether a flow run is being removed. Index: primary key.
select depth from removal where flow_run_id = :flow_run_id;

-- name: delete_logs [sqlite]
-- Some of what a flow run and its task runs have logged. Index: log_by_flow_run.
delete from log
where (timestamp, id) in (
    select timestamp, id from log where flow_run_id = :flow_run_id order by timestamp, id limit :limit
);

-- name: delete_logs [postgres]
-- The same.
delete from log
where ctid = any (array(
    select ctid from log where flow_run_id = :flow_run_id order by timestamp, id limit :limit
));

-- name: delete_artifacts
-- Some of what they have shown, but for the newest of each key, which is found by the key.
-- Index: artifact_by_flow_run.
delete from artifact
where id in (
    select artifact.id
    from artifact
    where artifact.flow_run_id = :flow_run_id
          and not exists (
              select 1 from artifact_collection as newest
              where newest.key = artifact.key and newest.latest_id = artifact.id
          )
    order by artifact.id
    limit :limit
);

-- name: task_runs_of
-- Some of its task runs. Index: task_run_by_flow_run.
select id from task_run where flow_run_id = :flow_run_id order by id limit :limit;

-- name: ended_task_runs
-- Task runs outside of flows that ended in a state before a time. Index: task_run_ended_outside_flows.
select id
from task_run
where state_type = :state_type and flow_run_id is null and end_time is not null
      and end_time < :end_time_before
order by end_time, id
limit :limit;

-- name: delete_logs_of_task_run [sqlite]
-- Some of what a task run outside of flows has logged. Index: log_by_task_run.
delete from log
where (timestamp, id) in (
    select timestamp, id from log where task_run_id = :task_run_id order by timestamp, id limit :limit
);

-- name: delete_logs_of_task_run [postgres]
-- The same.
delete from log
where ctid = any (array(
    select ctid from log where task_run_id = :task_run_id order by timestamp, id limit :limit
));

-- name: delete_artifacts_of_task_run
-- Some of what it has shown; see delete_artifacts. Index: artifact_by_task_run.
delete from artifact
where id in (
    select artifact.id
    from artifact
    where artifact.task_run_id = :task_run_id
          and not exists (
              select 1 from artifact_collection as newest
              where newest.key = artifact.key and newest.latest_id = artifact.id
          )
    order by artifact.id
    limit :limit
);

-- name: delete_cached_results [sqlite]
-- What some task runs have computed for others to use, and that does not expire by itself.
-- Index: cached_result_by_task_run.
delete from cached_result
where task_run_id in (select unhex(value, '-') from json_each(:ids)) and expiration is null;

-- name: delete_cached_results [postgres]
-- The same.
delete from cached_result
where task_run_id = any (array(select value::uuid from jsonb_array_elements_text(:ids) as given (value)))
      and expiration is null;

-- name: delete_task_runs [sqlite]
-- With their states. Index: primary key.
delete from task_run where id in (select unhex(value, '-') from json_each(:ids));

-- name: delete_task_runs [postgres]
-- The same.
delete from task_run
where id = any (array(select value::uuid from jsonb_array_elements_text(:ids) as given (value)));

-- name: delete_flow_run
-- With its states, inputs, owed hooks and mark. Index: primary key.
delete from flow_run where id = :flow_run_id;

-- name: delete_process
-- One that has ended and that no run names any more. Index: flow_run_by_owner.
delete from process
where id = :process_id and ended is not null
      and not exists (select 1 from flow_run where flow_run.owner_id = process.id)
      and not exists (select 1 from slot_claim where slot_claim.owner_id = process.id);

-- name: ended_processes
-- Some that ended before a time, from an id on. Index: primary key.
select id, ended
from process
where id > :after_id
order by id
limit :limit;

-- name: expired_results
-- How many cached results nobody can find any more. Index: cached_result_expiring.
select count(*) from cached_result where expiration is not null and expiration <= :now;

-- name: counts [sqlite]
-- What belongs to some flow runs. Index: task_run_by_flow_run, log_by_flow_run, artifact_by_flow_run.
select (select count(*) from task_run
        where task_run.flow_run_id in (select unhex(value, '-') from json_each(:ids))) as task_runs,
       (select count(*) from log
        where log.flow_run_id in (select unhex(value, '-') from json_each(:ids))) as log_lines,
       (select count(*) from artifact
        where artifact.flow_run_id in (select unhex(value, '-') from json_each(:ids))
              and not exists (
                  select 1 from artifact_collection as newest
                  where newest.key = artifact.key and newest.latest_id = artifact.id
              )) as artifacts,
       (select count(*)
        from task_run
        join cached_result on cached_result.task_run_id = task_run.id
        where task_run.flow_run_id in (select unhex(value, '-') from json_each(:ids))
              and cached_result.expiration is null) as cached_results;

-- name: counts [postgres]
-- The same.
select (select count(*) from task_run
        where task_run.flow_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))) as task_runs,
       (select count(*) from log
        where log.flow_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))) as log_lines,
       (select count(*) from artifact
        where artifact.flow_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))
              and not exists (
                  select 1 from artifact_collection as newest
                  where newest.key = artifact.key and newest.latest_id = artifact.id
              )) as artifacts,
       (select count(*) from cached_result
        where cached_result.task_run_id = any (array(
            select task_run.id from task_run
            where task_run.flow_run_id = any (array(
                select value::uuid from jsonb_array_elements_text(:ids) as given (value)
            ))
        ))
              and cached_result.expiration is null) as cached_results;

-- name: counts_of_task_runs [sqlite]
-- What belongs to some task runs outside of flows.
-- Index: log_by_task_run, artifact_by_task_run, cached_result_by_task_run.
select (select count(*) from log
        where log.task_run_id in (select unhex(value, '-') from json_each(:ids))) as log_lines,
       (select count(*) from artifact
        where artifact.task_run_id in (select unhex(value, '-') from json_each(:ids))
              and not exists (
                  select 1 from artifact_collection as newest
                  where newest.key = artifact.key and newest.latest_id = artifact.id
              )) as artifacts,
       (select count(*) from cached_result
        where cached_result.task_run_id in (select unhex(value, '-') from json_each(:ids))
              and cached_result.expiration is null) as cached_results;

-- name: counts_of_task_runs [postgres]
-- The same.
select (select count(*) from log
        where log.task_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))) as log_lines,
       (select count(*) from artifact
        where artifact.task_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))
              and not exists (
                  select 1 from artifact_collection as newest
                  where newest.key = artifact.key and newest.latest_id = artifact.id
              )) as artifacts,
       (select count(*) from cached_result
        where cached_result.task_run_id = any (array(
            select value::uuid from jsonb_array_elements_text(:ids) as given (value)
        ))
              and cached_result.expiration is null) as cached_results;

-- What `embedded-orch db check` looks for, and what the command needs besides to show runs. Each
-- check returns what is wrong, so no row means that all is well.

-- name: damages [sqlite]
-- What SQLite's own check of the file finds. It says "ok" when it finds nothing. The first row tells
-- of all broken trees at once; going on to the others fails on the broken page itself.
-- scan: it reads every page
select integrity_check as problem
from pragma_integrity_check
where integrity_check <> 'ok'
limit 1;

-- name: damages [postgres]
-- The server checks its files itself. What it leaves to us is an index that it does not use, after
-- a CREATE INDEX CONCURRENTLY that failed.
select 'index ' || class.relname || ' is invalid' as problem
from pg_catalog.pg_index as index
join pg_catalog.pg_class as class on class.oid = index.indexrelid
where class.relnamespace = current_schema()::regnamespace
      and not (index.indisvalid and index.indisready)
order by class.relname;

-- name: broken_references [sqlite]
-- Rows whose parent is not there, by table and parent; written with foreign_keys off.
-- scan: it looks up every reference
select "table" as child, parent, count(*) as how_many
from pragma_foreign_key_check
group by "table", parent
order by "table", parent;

-- name: broken_references [postgres]
-- The server keeps its references whole, unless a constraint was added without checking the rows.
select child.relname as child, parent.relname as parent, 0 as how_many
from pg_catalog.pg_constraint as reference
join pg_catalog.pg_class as child on child.oid = reference.conrelid
join pg_catalog.pg_class as parent on parent.oid = reference.confrelid
where reference.contype = 'f' and not reference.convalidated
      and child.relnamespace = current_schema()::regnamespace
order by child.relname, parent.relname;

-- name: flow_runs_beside_their_history
-- Flow runs whose current state is not the last state of their history.
-- scan: every run is compared with its history
select flow_run.id, flow_run.name,
       flow_run.state_name, flow_run.state_type, flow_run.state_timestamp,
       last.name as recorded_name, last.type as recorded_type, last.timestamp as recorded
from flow_run
left join flow_run_state as last
    on last.flow_run_id = flow_run.id
       and last.timestamp = (
           select max(timestamp) from flow_run_state where flow_run_id = flow_run.id
       )
where flow_run.state_id is distinct from last.id
      or flow_run.state_type is distinct from last.type
      or flow_run.state_name is distinct from last.name
      or flow_run.state_timestamp is distinct from last.timestamp
order by flow_run.id
limit :limit;

-- name: task_runs_beside_their_history
-- The same for task runs.
-- scan: every run is compared with its history
select task_run.id, task_run.name,
       task_run.state_name, task_run.state_type, task_run.state_timestamp,
       last.name as recorded_name, last.type as recorded_type, last.timestamp as recorded
from task_run
left join task_run_state as last
    on last.task_run_id = task_run.id
       and last.timestamp = (
           select max(timestamp) from task_run_state where task_run_id = task_run.id
       )
where task_run.state_id is distinct from last.id
      or task_run.state_type is distinct from last.type
      or task_run.state_name is distinct from last.name
      or task_run.state_timestamp is distinct from last.timestamp
order by task_run.id
limit :limit;

-- name: flow_runs_with_wrong_end
-- Flow runs that have ended without an end time, or have one and have not ended.
-- scan: every run is looked at
select id, name, state_name
from flow_run
where (coalesce(state_type, '') in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'))
      <> (end_time is not null)
order by id
limit :limit;

-- name: task_runs_with_wrong_end
-- The same for task runs.
-- scan: every run is looked at
select id, name, state_name
from task_run
where (coalesce(state_type, '') in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'))
      <> (end_time is not null)
order by id
limit :limit;

-- name: pools_with_foreign_queue
-- Work pools whose default queue belongs to another pool.
select work_pool.name as pool, work_queue.name as queue
from work_pool
join work_queue on work_queue.id = work_pool.default_queue_id
where work_queue.work_pool_id <> work_pool.id
order by work_pool.name
limit :limit;

-- name: flow_runs_between
-- Flow runs by the first digits of their ids. Index: primary key.
select id
from flow_run
where id >= :least_id and id <= :most_id
order by id
limit :limit;

-- name: task_runs_of
-- The task runs of a flow run without what they returned, those that did not complete first.
-- Index: task_run_by_flow_run.
select task_run.id, task_run.name, task_run.state_type, task_run.state_name, task_run.start_time,
       task_run.end_time, task_run.run_count, current.message
from task_run
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
where task_run.flow_run_id = :flow_run_id
order by case when task_run.state_type = 'COMPLETED' then 1 else 0 end, task_run.id
limit :limit;

-- name: task_run_counts_of
-- How many task runs of a flow run are in each state. Index: task_run_by_flow_run.
select state_name, count(*) as how_many
from task_run
where flow_run_id = :flow_run_id
group by state_name
order by how_many desc, state_name;

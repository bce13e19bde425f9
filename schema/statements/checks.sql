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
select work_pool.id, work_pool.name as pool, work_queue.name as queue
from work_pool
join work_queue on work_queue.id = work_pool.default_queue_id
where work_queue.work_pool_id <> work_pool.id
order by work_pool.name
limit :limit;

-- name: flow_runs_ended_before_start
-- Flow runs whose end is before their beginning.
-- scan: every run is looked at
select id, name, start_time, end_time
from flow_run
where end_time < start_time
order by id
limit :limit;

-- name: task_runs_ended_before_start
-- The same for task runs.
-- scan: every run is looked at
select id, name, start_time, end_time
from task_run
where end_time < start_time
order by id
limit :limit;

-- name: steps_of_flow_runs
-- Steps in histories that no rule makes: they come of force, or of somebody's own SQL.
-- scan: every state is looked at
select flow_run.id, flow_run.name, step.type_before, step.type, step.timestamp
from (
    select flow_run_id, type, timestamp,
           lag(type) over (partition by flow_run_id order by timestamp) as type_before
    from flow_run_state
) as step
join flow_run on flow_run.id = step.flow_run_id
where (step.type_before in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
       and step.type in ('CANCELLING', 'PAUSED', 'CRASHED'))
      or (step.type_before = 'CANCELLING' and step.type not in ('CANCELLING', 'CANCELLED'))
      or (step.type_before in ('RUNNING', 'CANCELLING', 'CANCELLED') and step.type = 'PENDING')
      or (step.type_before in ('SCHEDULED', 'PENDING') and step.type = 'PAUSED')
      or (step.type_before = 'PAUSED' and step.type in ('PENDING', 'PAUSED'))
order by flow_run.id, step.timestamp
limit :limit;

-- name: steps_of_task_runs
-- The same for task runs, of which the rules ask less: that nobody cancels or pauses what has ended.
-- The task run of a flow follows that flow.
-- scan: every state is looked at
select task_run.id, task_run.name, step.type_before, step.type, step.timestamp
from (
    select task_run_id, type, timestamp,
           lag(type) over (partition by task_run_id order by timestamp) as type_before
    from task_run_state
) as step
join task_run on task_run.id = step.task_run_id
where step.type_before in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
      and step.type in ('CANCELLING', 'PAUSED')
order by task_run.id, step.timestamp
limit :limit;

-- name: task_runs_under_an_end
-- Task runs that have not ended, under a flow run that has, for a while, and whose process has too.
-- scan: every run is looked at
select task_run.id, task_run.name, task_run.state_name,
       flow_run.name as flow_run_name, flow_run.state_name as flow_run_state_name
from task_run
join flow_run on flow_run.id = task_run.flow_run_id
left join process as owner on owner.id = flow_run.owner_id
where coalesce(task_run.state_type, '')
          in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
      and task_run.state_name <> 'NotReady'
      and coalesce(flow_run.state_type, '') in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
      and flow_run.state_timestamp < :before_timestamp
      and (owner.id is null or owner.ended is not null)
order by task_run.id
limit :limit;

-- name: flow_runs_under_an_end
-- The same for flow runs, whose task run in their caller has ended.
-- scan: every run is looked at
select flow_run.id, flow_run.name, flow_run.state_name,
       task_run.name as task_run_name, task_run.state_name as task_run_state_name
from flow_run
join task_run on task_run.id = flow_run.parent_task_run_id
left join process as owner on owner.id = flow_run.owner_id
where coalesce(flow_run.state_type, '')
          in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
      and task_run.state_type in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
      and task_run.state_timestamp < :before_timestamp
      and (owner.id is null or owner.ended is not null)
order by flow_run.id
limit :limit;

-- name: flow_runs_of_nobody
-- Flow runs that nothing will ever move: at work without a process, or with one that has ended and
-- nobody is to resume; or scheduled for no time.
-- scan: every run is looked at
select flow_run.id, flow_run.name, flow_run.state_name
from flow_run
left join process as owner on owner.id = flow_run.owner_id
where (coalesce(flow_run.state_type, '') in ('PENDING', 'RUNNING', 'CANCELLING')
       and flow_run.state_timestamp < :before_timestamp
       and ((flow_run.owner_id is null and flow_run.state_type <> 'PENDING')
            or (owner.ended is not null
                and (flow_run.on_crash = 'fail' or flow_run.state_type = 'CANCELLING'))))
      or (flow_run.state_type = 'SCHEDULED' and flow_run.next_scheduled_start_time is null
          and flow_run.state_timestamp < :before_timestamp)
order by flow_run.id
limit :limit;

-- name: callers_that_are_gone
-- Flow runs that name a task run as their caller that is not there.
-- scan: every flow run that was called is looked at
select flow_run.id, flow_run.name
from flow_run
where flow_run.parent_task_run_id is not null
      and not exists (select 1 from task_run where task_run.id = flow_run.parent_task_run_id)
order by flow_run.id
limit :limit;

-- name: claims_of_the_dead
-- Slots that are held, or waited for, by processes that have ended.
select slot_claim.claim_id as id, concurrency_limit.name, slot_claim.state, slot_claim.slots
from slot_claim
join concurrency_limit on concurrency_limit.id = slot_claim.limit_id
left join process on process.id = slot_claim.owner_id
where process.id is null or process.ended is not null
order by slot_claim.claim_id, concurrency_limit.name
limit :limit;

-- name: claims_of_ended_runs
-- Slots that are held by task runs that have ended for a while. Index: primary key.
select slot_claim.claim_id as id, concurrency_limit.name, slot_claim.slots,
       task_run.name as task_run_name
from slot_claim
join concurrency_limit on concurrency_limit.id = slot_claim.limit_id
join task_run on task_run.id = slot_claim.holder_id
where slot_claim.state = 'HOLDING' and slot_claim.holder_type = 'task_run'
      and task_run.state_type in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
      and task_run.state_timestamp < :before_timestamp
order by slot_claim.claim_id, concurrency_limit.name
limit :limit;

-- name: limits_overdrawn
-- Limits of which more is held than there is, by somebody who came after the limit was last set.
select concurrency_limit.id, concurrency_limit.name, concurrency_limit.slot_limit,
       cast(sum(slot_claim.slots) as integer) as slots
from concurrency_limit
join slot_claim on slot_claim.limit_id = concurrency_limit.id and slot_claim.state = 'HOLDING'
where concurrency_limit.slot_decay_per_second = 0
group by concurrency_limit.id, concurrency_limit.name, concurrency_limit.slot_limit,
         concurrency_limit.updated
having sum(slot_claim.slots) > concurrency_limit.slot_limit
       and max(slot_claim.since) > concurrency_limit.updated
order by concurrency_limit.name
limit :limit;

-- name: locks_of_the_dead
-- Locks of cache keys that are held by processes that have ended.
select cache_lock.key, cache_lock.holder
from cache_lock
left join process on process.id = cache_lock.owner_id
where process.id is null or process.ended is not null
order by cache_lock.key
limit :limit;

-- name: logs_of_nobody
-- Lines that were logged by runs that are not there, and not just now. Index: primary key.
select log.flow_run_id, log.task_run_id, count(*) as how_many
from log
where log.timestamp < :before_timestamp
      and ((log.flow_run_id is not null
            and not exists (select 1 from flow_run where flow_run.id = log.flow_run_id))
           or (log.flow_run_id is null and log.task_run_id is not null
               and not exists (select 1 from task_run where task_run.id = log.task_run_id)))
group by log.flow_run_id, log.task_run_id
order by log.flow_run_id, log.task_run_id
limit :limit;

-- name: keys_beside_their_artifacts
-- Keys of artifacts whose newest one is not the one that they name. Index: artifact_by_key.
select artifact_collection.key, artifact_collection.latest_id,
       (select artifact.id from artifact
        where artifact.key = artifact_collection.key
        order by artifact.id desc
        limit 1) as newest_id
from artifact_collection
where not exists (
    select 1 from artifact
    where artifact.key = artifact_collection.key and artifact.id = artifact_collection.latest_id
          and not exists (
              select 1 from artifact as newer
              where newer.key = artifact.key and newer.id > artifact.id
          )
)
order by artifact_collection.key
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

-- Handing out runs that are due: many are put into queues, a few at a time are claimed from them.

-- name: insert_runs [sqlite]
-- Many new runs, all SCHEDULED, in the order of the array. Left out are those that are there
-- already, by id or by flow_id and idempotency_key. What the array does not say of a run is as of
-- most. ("where true" keeps the parser from taking ON CONFLICT for the condition of a join.)
insert into flow_run (
    id, flow_id, name, state_id, state_type, state_name, state_timestamp, expected_start_time,
    next_scheduled_start_time, parameters, entrypoint, flow_version, idempotency_key, tags, labels,
    empirical_policy, created_by, job_variables, deployment_id, deployment_version, auto_scheduled,
    work_queue_id, created, updated
)
select unhex(run.value ->> 'id', '-'), unhex(run.value ->> 'flow_id', '-'), run.value ->> 'name',
       unhex(run.value ->> 'state_id', '-'), 'SCHEDULED', 'Scheduled', :now,
       run.value ->> 'scheduled_time', run.value ->> 'scheduled_time',
       coalesce(run.value ->> 'parameters', '{}'), run.value ->> 'entrypoint',
       run.value ->> 'flow_version', run.value ->> 'idempotency_key',
       coalesce(run.value -> 'tags', '[]'), coalesce(run.value -> 'labels', '{}'),
       coalesce(run.value -> 'empirical_policy', '{}'),
       nullif(run.value -> 'created_by', 'null'), coalesce(run.value -> 'job_variables', '{}'),
       unhex(run.value ->> 'deployment_id', '-'), run.value ->> 'deployment_version',
       coalesce(run.value ->> 'auto_scheduled', false), unhex(run.value ->> 'work_queue_id', '-'), :now, :now
from json_each(:runs) as run
where true
order by run.key
on conflict do nothing;

-- name: insert_runs [postgres]
-- The same, with the first states of those runs that are really new; how many these are.
with made as (
    insert into flow_run (
        id, flow_id, name, state_id, state_type, state_name, state_timestamp, expected_start_time,
        next_scheduled_start_time, parameters, entrypoint, flow_version, idempotency_key, tags,
        labels, empirical_policy, created_by, job_variables, deployment_id, deployment_version,
        auto_scheduled, work_queue_id, created, updated
    )
    select run.id, run.flow_id, run.name, run.state_id, 'SCHEDULED', 'Scheduled', :now,
           run.scheduled_time, run.scheduled_time, coalesce(cast(run.parameters as json), '{}'),
           run.entrypoint, run.flow_version, run.idempotency_key, coalesce(run.tags, '[]'),
           coalesce(run.labels, '{}'), coalesce(run.empirical_policy, '{}'),
           nullif(run.created_by, 'null'), coalesce(run.job_variables, '{}'), run.deployment_id,
           run.deployment_version, coalesce(run.auto_scheduled, false), run.work_queue_id, :now,
           :now
    from rows from (
        jsonb_to_recordset(:runs) as (
            id uuid, flow_id uuid, name text, state_id uuid, scheduled_time bigint,
            parameters text, entrypoint text, flow_version text, idempotency_key text, tags jsonb,
            labels jsonb, empirical_policy jsonb, created_by jsonb, job_variables jsonb,
            deployment_id uuid, deployment_version text, auto_scheduled boolean, work_queue_id uuid
        )
    ) with ordinality as run (
        id, flow_id, name, state_id, scheduled_time, parameters, entrypoint, flow_version,
        idempotency_key, tags, labels, empirical_policy, created_by, job_variables, deployment_id,
        deployment_version, auto_scheduled, work_queue_id, position
    )
    order by run.position
    on conflict do nothing
    returning id, state_timestamp, state_id, state_type, state_name, next_scheduled_start_time
),
past as (
    insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
    select id, state_timestamp, state_id, state_type, state_name,
           jsonb_build_object('scheduled_time', next_scheduled_start_time)
    from made
)
select count(*) from made;

-- name: insert_first_states [sqlite]
-- The first states of those runs that are really new: a run that was there has another id or
-- another state. Nothing when they are there. Key: flow_run_id, timestamp. Index: primary key.
insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
select flow_run.id, flow_run.state_timestamp, flow_run.state_id, flow_run.state_type,
       flow_run.state_name,
       json_object('scheduled_time', flow_run.next_scheduled_start_time)
from json_each(:runs) as run
join flow_run on flow_run.id = unhex(run.value ->> 'id', '-')
              and flow_run.state_id = unhex(run.value ->> 'state_id', '-')
where true
on conflict (flow_run_id, timestamp) do nothing;

-- name: standing_runs [sqlite]
-- For each of those runs the one that stands in the table: itself, or the older one with the same
-- key. Index: primary key, flow_run_by_idempotency_key.
select coalesce(
    (select id from flow_run where id = unhex(run.value ->> 'id', '-')),
    (
        select id
        from flow_run
        where flow_id = unhex(run.value ->> 'flow_id', '-')
              and idempotency_key = run.value ->> 'idempotency_key'
    )
) as id
from json_each(:runs) as run
order by run.key;

-- name: standing_runs [postgres]
-- The same.
select coalesce(
    (select flow_run.id from flow_run where flow_run.id = run.id),
    (
        select flow_run.id
        from flow_run
        where flow_run.flow_id = run.flow_id and flow_run.idempotency_key = run.idempotency_key
    )
) as id
from rows from (
    jsonb_to_recordset(:runs) as (id uuid, flow_id uuid, idempotency_key text)
) with ordinality as run (id, flow_id, idempotency_key, position)
order by run.position;

-- name: count_holders
-- How many runs hold a slot of the pool, in whichever of its queues, paused ones included.
-- ("cross join" keeps SQLite from starting at all running runs of the database.)
-- Index: work_queue_by_priority, flow_run_holding_slot.
select count(*)
from work_queue
cross join flow_run
where work_queue.work_pool_id = :work_pool_id and flow_run.work_queue_id = work_queue.id
      and flow_run.work_queue_id is not null and flow_run.state_type in ('PENDING', 'RUNNING');

-- name: candidates [sqlite]
-- The next runs of a pool: its open queues by priority, each up to its room, in each the earliest
-- first. Postgres takes a number of runs from each queue by LATERAL; a LIMIT in SQLite cannot name
-- the queue it is for, and numbering the runs by a window would read the whole backlog. So this
-- walks: each step is one search for the run after the last one in the index, or, when the queue
-- has no more room or no more runs, goes on to the next queue. It reads what it takes, and one
-- search for each queue. None are left for a claim that took some before.
-- Index: work_queue_by_priority, flow_run_holding_slot, flow_run_claimable, flow_run_by_claim.
with recursive
queue as materialized (
    -- min() is NULL as soon as one of its arguments is
    select row_number() over (order by priority, id) as turn, id,
           min(:limit, coalesce(case when concurrency_limit is not null then concurrency_limit - (
               select count(*)
               from flow_run
               where work_queue_id = work_queue.id and work_queue_id is not null
                     and state_type in ('PENDING', 'RUNNING')
           ) end, :limit)) as room
    from work_queue
    where work_pool_id = :work_pool_id and is_paused = false
          and (:queue_names is null or name in (select value from json_each(:queue_names)))
          and not exists (select 1 from flow_run where claim_id = :claim_id)
),
walk (turn, taken_here, taken, due, id) as (
    -- an empty id comes before all others
    select 1, 0, 0, :scheduled_after, x''
    union all
    select case when run.id is null then walk.turn + 1 else walk.turn end,
           case when run.id is null then 0 else walk.taken_here + 1 end,
           case when run.id is null then walk.taken else walk.taken + 1 end,
           coalesce(run.next_scheduled_start_time, :scheduled_after),
           coalesce(run.id, x'')
    from walk
    join queue on queue.turn = walk.turn
    left join flow_run as run on run.id = (
        select id
        from flow_run
        where work_queue_id = queue.id and work_queue_id is not null and state_type = 'SCHEDULED'
              and (next_scheduled_start_time, id) > (walk.due, walk.id)
              and next_scheduled_start_time <= :scheduled_before
              and empirical_policy ->> 'retry_type' is not 'in_process'
              and walk.taken_here < queue.room
        order by next_scheduled_start_time, id
        limit 1
    )
    where walk.taken < :limit
)
select id, due as scheduled_time from walk where id <> x'';

-- name: candidates [postgres]
-- The next runs of a pool: its open queues by priority, each up to its room, in each the earliest
-- first. Rows that somebody else has locked are passed over. The queues come sorted, so that the
-- sort at the end only has to sort within each, and stops at the limit without having asked (and
-- locked) the rest. None are left for a claim that took some before.
-- Index: work_queue_by_priority, flow_run_holding_slot, flow_run_claimable, flow_run_by_claim.
select run.id, run.next_scheduled_start_time as scheduled_time
from (
    -- least() passes over NULL: a queue without a limit
    select id, priority,
           least(:limit, case when concurrency_limit is not null then concurrency_limit - (
               select count(*)
               from flow_run
               where work_queue_id = work_queue.id and state_type in ('PENDING', 'RUNNING')
           ) end) as room
    from work_queue
    where work_pool_id = :work_pool_id and is_paused = false
          and (
              cast(:queue_names as jsonb) is null
              or name in (select value from jsonb_array_elements_text(:queue_names) as wanted (value))
          )
          and not exists (select 1 from flow_run where claim_id = :claim_id)
    order by priority, id
    offset 0
) as queue
cross join lateral (
    select flow_run.id, flow_run.next_scheduled_start_time
    from flow_run
    where flow_run.work_queue_id = queue.id and flow_run.state_type = 'SCHEDULED'
          and flow_run.next_scheduled_start_time between :scheduled_after and :scheduled_before
          and flow_run.empirical_policy ->> 'retry_type' is distinct from 'in_process'
    order by flow_run.next_scheduled_start_time, flow_run.id
    limit greatest(queue.room, 0)
    for update skip locked
) as run
order by queue.priority, queue.id, run.next_scheduled_start_time, run.id
limit :limit;

-- name: insert_pending_states [sqlite]
-- The state of claimed runs, before the runs themselves forget when they were due. Two states of a
-- run never have the same time. Index: primary key.
insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
select flow_run.id, max(:now, flow_run.state_timestamp + 1),
       unhex(claimed.value ->> 'state_id', '-'), 'PENDING', 'Pending',
       json_object('scheduled_time', flow_run.next_scheduled_start_time)
from json_each(:claimed) as claimed
join flow_run on flow_run.id = unhex(claimed.value ->> 'id', '-');

-- name: set_pending [sqlite]
-- The claimed runs themselves. They have a new owner, so what an earlier one still writes has an
-- epoch that is past. Index: primary key.
update flow_run
set state_id = unhex(claimed.value ->> 'state_id', '-'), state_type = 'PENDING',
    state_name = 'Pending', state_timestamp = max(:now, state_timestamp + 1),
    next_scheduled_start_time = null, claim_id = :claim_id, owner_id = :owner_id,
    epoch = epoch + 1, updated = :now
from json_each(:claimed) as claimed
where flow_run.id = unhex(claimed.value ->> 'id', '-');

-- name: set_pending [postgres]
-- The same, with their states, which say when they were due; and what "claimed" would find.
with claimed as (
    select id, state_id, scheduled_time
    from jsonb_to_recordset(:claimed) as claimed (id uuid, state_id uuid, scheduled_time bigint)
),
taken as (
    update flow_run
    set state_id = claimed.state_id, state_type = 'PENDING', state_name = 'Pending',
        state_timestamp = greatest(:now, state_timestamp + 1), next_scheduled_start_time = null,
        claim_id = :claim_id, owner_id = :owner_id, epoch = epoch + 1, updated = :now
    from claimed
    where flow_run.id = claimed.id
    returning flow_run.id, flow_run.flow_id, flow_run.name, flow_run.run_count, flow_run.epoch,
              flow_run.deployment_id, flow_run.work_queue_id, flow_run.entrypoint,
              flow_run.parameters, flow_run.tags, flow_run.job_variables, flow_run.state_id,
              flow_run.state_timestamp,
              jsonb_build_object('scheduled_time', claimed.scheduled_time) as state_details
),
past as (
    insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
    select id, state_timestamp, state_id, 'PENDING', 'Pending', state_details
    from taken
)
select id, flow_id, name, run_count, epoch, deployment_id, work_queue_id, entrypoint, parameters,
       tags, job_variables, state_id, state_timestamp, state_details
from taken
order by state_id;

-- name: claimed [sqlite]
-- What a claim took. The ids of its states were given out in ascending order, which is therefore
-- that of the claim. Index: flow_run_by_claim, primary key.
select flow_run.id, flow_run.flow_id, flow_run.name, flow_run.run_count, flow_run.epoch,
       flow_run.deployment_id, flow_run.work_queue_id, flow_run.entrypoint, flow_run.parameters,
       flow_run.tags, flow_run.job_variables, pending.id as state_id,
       pending.timestamp as state_timestamp, pending.state_details
from flow_run
join flow_run_state as pending on pending.flow_run_id = flow_run.id
where flow_run.claim_id = :claim_id
      and pending.id in (select unhex(value, '-') from json_each(:state_ids))
order by pending.id;

-- name: claimed [postgres]
-- The same.
select flow_run.id, flow_run.flow_id, flow_run.name, flow_run.run_count, flow_run.epoch,
       flow_run.deployment_id, flow_run.work_queue_id, flow_run.entrypoint, flow_run.parameters,
       flow_run.tags, flow_run.job_variables, pending.id as state_id,
       pending.timestamp as state_timestamp, pending.state_details
from flow_run
join flow_run_state as pending on pending.flow_run_id = flow_run.id
where flow_run.claim_id = :claim_id
      and pending.id in (
          select cast(value as uuid) from jsonb_array_elements_text(:state_ids) as given (value)
      )
order by pending.id;

-- Work queues: the lanes of a pool, each with its priority. A pool has a few of them.

-- name: insert
-- Nothing when the pool has a queue of this name. Key: work_pool_id, name.
insert into work_queue (id, work_pool_id, name, priority, created, updated)
values (:id, :work_pool_id, :name, :priority, :now, :now)
on conflict (work_pool_id, name) do nothing;

-- name: get
-- Index: unique work_pool_id, name.
select id, work_pool_id, name, description, is_paused, concurrency_limit, priority, status,
       last_polled, created, updated
from work_queue
where work_pool_id = :work_pool_id and name = :name;

-- name: update
-- Index: primary key.
update work_queue
set description = :description, is_paused = :is_paused, concurrency_limit = :concurrency_limit,
    priority = :priority, status = :status, updated = :now
where id = :id;

-- name: first_free_priority
-- The smallest number from at_least on that no other queue of the pool has: at_least itself, or
-- one after a number that is taken. Index: work_queue_by_priority.
select min(candidate.priority)
from (
    select cast(:at_least as integer) as priority
    union all
    select priority + 1
    from work_queue
    where work_pool_id = :work_pool_id and priority >= :at_least and id <> :id
) as candidate
where candidate.priority not in (
    select priority from work_queue where work_pool_id = :work_pool_id and id <> :id
);

-- name: shift_priorities
-- Makes room at "from_priority" by moving the unbroken row of others that begins there by one.
-- Index: work_queue_by_priority.
update work_queue
set priority = priority + 1, updated = :now
where work_pool_id = :work_pool_id and id <> :id
      and priority >= :from_priority and priority < :free_priority;

-- name: unknown_names [sqlite]
-- Those of the names that no queue of the pool has. Index: unique work_pool_id, name.
select wanted.value as name
from json_each(:names) as wanted
where not exists (
    select 1 from work_queue where work_pool_id = :work_pool_id and name = wanted.value
)
order by wanted.key;

-- name: unknown_names [postgres]
-- The same.
select wanted.value as name
from jsonb_array_elements_text(:names) with ordinality as wanted (value, key)
where not exists (
    select 1 from work_queue where work_pool_id = :work_pool_id and name = wanted.value
)
order by wanted.key;

-- name: find [sqlite]
-- The queues of a pool in the order in which they are served. "text" is looked for in the name as
-- it is, % and _ included, and in either case of A to Z. Index: work_queue_by_priority.
select id, work_pool_id, name, description, is_paused, concurrency_limit, priority, status,
       last_polled, created, updated
from work_queue
where work_pool_id = :work_pool_id
      and (:text is null or instr(lower(name), lower(:text)) > 0)
order by priority, id;

-- name: find [postgres]
-- The same. The collation makes lower() mean A to Z whatever the database's own locale is.
select id, work_pool_id, name, description, is_paused, concurrency_limit, priority, status,
       last_polled, created, updated
from work_queue
where work_pool_id = :work_pool_id
      and (
          cast(:text as text) is null
          or strpos(lower(name collate "C"), lower(cast(:text as text) collate "C")) > 0
      )
order by priority, id;

-- name: mark_polled [sqlite]
-- A worker asked these queues for runs. The later time stays, whichever poll is written first.
-- Index: unique work_pool_id, name. max() is NULL as soon as one of its arguments is.
update work_queue
set last_polled = max(coalesce(last_polled, :now), :now),
    status = case when is_paused = true then 'PAUSED' else 'READY' end
where work_pool_id = :work_pool_id
      and (:names is null or name in (select value from json_each(:names)));

-- name: mark_polled [postgres]
-- The same; greatest() passes over NULL.
update work_queue
set last_polled = greatest(last_polled, :now),
    status = case when is_paused = true then 'PAUSED' else 'READY' end
where work_pool_id = :work_pool_id
      and (
          cast(:names as jsonb) is null
          or name in (select value from jsonb_array_elements_text(:names) as wanted (value))
      );

-- name: of_flow_run
-- The queue that a run was put into, and its pool. Index: primary keys.
select work_queue.name, work_pool.name as pool_name, work_queue.is_paused,
       work_pool.is_paused as pool_is_paused, work_queue.concurrency_limit,
       work_pool.concurrency_limit as pool_concurrency_limit
from flow_run
join work_queue on work_queue.id = flow_run.work_queue_id
join work_pool on work_pool.id = work_queue.work_pool_id
where flow_run.id = :flow_run_id;

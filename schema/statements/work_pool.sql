-- Work pools: what workers serve. A program has a handful.

-- name: insert
-- Nothing when the name is there. The queue may come after it: that key is checked at the commit.
-- Key: name.
insert into work_pool (id, name, type, default_queue_id, created, updated)
values (:id, :name, :type, :default_queue_id, :now, :now)
on conflict (name) do nothing;

-- name: get
-- Index: unique name.
select id, name, description, type, base_job_template, is_paused, concurrency_limit,
       default_queue_id, status, created, updated
from work_pool
where name = :name;

-- name: get_locked [sqlite]
-- The same, for a change that depends on what is read, or on what else the pool holds. The
-- IMMEDIATE transaction it runs in locks everything. Index: unique name.
select id, name, description, type, base_job_template, is_paused, concurrency_limit,
       default_queue_id, status, created, updated
from work_pool
where name = :name;

-- name: get_locked [postgres]
-- The same, one at a time for each pool until the transaction ends. Runs may still be given to
-- its queues meanwhile: their foreign keys ask for less.
select id, name, description, type, base_job_template, is_paused, concurrency_limit,
       default_queue_id, status, created, updated
from work_pool
where name = :name
for no key update;

-- name: update
-- Index: primary key.
update work_pool
set description = :description, base_job_template = :base_job_template, is_paused = :is_paused,
    concurrency_limit = :concurrency_limit, status = :status, updated = :now
where id = :id;

-- name: find [sqlite]
-- Pools by name. "text" is looked for as it is, % and _ included, and in either case of A to Z.
-- scan: a program has a handful of pools
select id, name, description, type, base_job_template, is_paused, concurrency_limit,
       default_queue_id, status, created, updated
from work_pool
where :text is null or instr(lower(name), lower(:text)) > 0
order by name;

-- name: find [postgres]
-- The same. The collation makes lower() mean A to Z whatever the database's own locale is.
-- scan: a program has a handful of pools
select id, name, description, type, base_job_template, is_paused, concurrency_limit,
       default_queue_id, status, created, updated
from work_pool
where cast(:text as text) is null
      or strpos(lower(name collate "C"), lower(cast(:text as text) collate "C")) > 0
order by name collate "C";

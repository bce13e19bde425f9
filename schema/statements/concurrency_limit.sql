-- Concurrency limits: a few rows, read by name.

-- name: insert
-- Nothing when the name is there. Key: name.
insert into concurrency_limit (
    id, name, slot_limit, is_active, slot_decay_per_second, spent, spent_at, created, updated
)
values (:id, :name, :slot_limit, :is_active, :slot_decay_per_second, 0, :now, :now, :now)
on conflict (name) do nothing;

-- name: names_among [sqlite]
-- Those of the names that are limits. Index: unique name.
select name from concurrency_limit where name in (select value from json_each(:names));

-- name: names_among [postgres]
-- The same.
select name
from concurrency_limit
where name in (select value from jsonb_array_elements_text(:names) as given (value));

-- name: by_names [sqlite]
-- Limits by name. Index: unique name.
select id, name, slot_limit, is_active, slot_decay_per_second, spent, spent_at, spent_claim_id,
       created, updated
from concurrency_limit
where name in (select value from json_each(:names))
order by name;

-- name: by_names [postgres]
-- The same.
select id, name, slot_limit, is_active, slot_decay_per_second, spent, spent_at, spent_claim_id,
       created, updated
from concurrency_limit
where name in (select value from jsonb_array_elements_text(:names) as given (value))
order by name;

-- name: by_names_lock [postgres]
-- Before by_names, where slots are taken: claims on a limit take turns until the transaction ends.
-- In the order of the names, so that two claims do not lock crosswise. Index: unique name.
select id
from concurrency_limit
where name in (select value from jsonb_array_elements_text(:names) as given (value))
order by name
for no key update;

-- name: find [sqlite]
-- Limits by name, also by a part of it, as it is and in either case of A to Z, a page at a time.
-- Index: unique name.
select id, name, slot_limit, is_active, slot_decay_per_second, spent, spent_at, spent_claim_id,
       created, updated
from concurrency_limit
where name > :after_name
      and (:name_like is null or instr(lower(name), lower(:name_like)) > 0)
order by name
limit :limit;

-- name: find [postgres]
-- The same.
select id, name, slot_limit, is_active, slot_decay_per_second, spent, spent_at, spent_claim_id,
       created, updated
from concurrency_limit
where name > :after_name
      and (
          cast(:name_like as text) is null
          or strpos(lower(name collate "C"), lower(cast(:name_like as text) collate "C")) > 0
      )
order by name
limit :limit;

-- name: update
-- Index: primary key.
update concurrency_limit
set name = :name, slot_limit = :slot_limit, is_active = :is_active,
    slot_decay_per_second = :slot_decay_per_second, spent = :spent, spent_at = :spent_at,
    updated = :now
where id = :id;

-- name: spend
-- What is taken of a limit that decays, and by which claim. Index: primary key.
update concurrency_limit
set spent = :spent, spent_at = :spent_at, spent_claim_id = :claim_id
where id = :id;

-- name: delete
-- With all claims on it. Index: primary key.
delete from concurrency_limit where id = :id;

-- name: clock [sqlite]
-- The time by which leases are compared: on one host, the caller's.
select cast(:now as integer) as now;

-- name: clock [postgres]
-- The server's, since the clocks of hosts differ; the caller's only where it has none.
select coalesce(
    cast(extract(epoch from statement_timestamp()) * 1000000 as bigint), cast(:now as bigint)
) as now;

-- Who computes the result of a cache key now, where only one may.

-- name: take
-- Nothing when somebody holds it, or the same holder again. Key: key.
insert into cache_lock (key, holder, owner_id, since)
values (:key, :holder, :owner_id, :now)
on conflict (key) do nothing;

-- name: get
-- Index: primary key.
select holder, owner_id
from cache_lock
where key = :key;

-- name: release
-- Index: primary key.
delete from cache_lock where key = :key and holder = :holder;

-- name: delete_of_owner
-- What a process held when it ended. Index: cache_lock_by_owner.
delete from cache_lock where owner_id = :owner_id;

-- name: delete_of_holders [sqlite]
-- What a process held in the name of some task runs. Index: cache_lock_by_owner.
delete from cache_lock
where owner_id = :owner_id and holder in (select value from json_each(:holder_ids));

-- name: delete_of_holders [postgres]
-- The same.
delete from cache_lock
where owner_id = :owner_id
      and holder in (select value from jsonb_array_elements_text(:holder_ids) as given (value));

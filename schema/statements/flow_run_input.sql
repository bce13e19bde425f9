-- Inputs of flow runs, each under a key of its run.

-- name: insert
-- Nothing when the key is there. Key: flow_run_id, key.
insert into flow_run_input (flow_run_id, key, id, value, sender, created)
values (:flow_run_id, :key, :id, :value, :sender, :now)
on conflict (flow_run_id, key) do nothing;

-- name: put
-- The same, in place of what is there. Key: flow_run_id, key.
insert into flow_run_input (flow_run_id, key, id, value, sender, created)
values (:flow_run_id, :key, :id, :value, :sender, :now)
on conflict (flow_run_id, key) do update
set id = excluded.id, value = excluded.value, sender = excluded.sender,
    created = excluded.created;

-- name: get
-- Index: primary key.
select id, key, value, sender, created
from flow_run_input
where flow_run_id = :flow_run_id and key = :key;

-- name: delete
-- Index: primary key.
delete from flow_run_input where flow_run_id = :flow_run_id and key = :key;

-- name: with_prefix [sqlite]
-- Those whose keys begin alike, oldest first; no character of a key comes after "z".
-- Index: primary key.
select id, key, value, sender, created
from flow_run_input
where flow_run_id = :flow_run_id and key >= :key and key < :key || '~'
      and key not in (select value from json_each(:names))
order by id
limit :limit;

-- name: with_prefix [postgres]
-- The same.
select id, key, value, sender, created
from flow_run_input
where flow_run_id = :flow_run_id and key >= :key and key < cast(:key as text) || '~'
      and key not in (select value from jsonb_array_elements_text(:names) as given (value))
order by id
limit :limit;

-- Flows: one row per name.

-- name: insert
-- Nothing when the name is there. Key: name.
insert into flow (id, name, created, updated)
values (:id, :name, :now, :now)
on conflict (name) do nothing;

-- name: id_by_name
-- Index: unique name.
select id from flow where name = :name;

-- name: get_many [sqlite]
-- Flows by id, for people, in the order of the ids. Index: primary key.
select flow.id, flow.name, flow.tags, flow.created
from json_each(:ids) as wanted
join flow on flow.id = unhex(wanted.value, '-')
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select flow.id, flow.name, flow.tags, flow.created
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join flow on flow.id = wanted.value::uuid
order by wanted.key;

-- fragment: conditions [sqlite]
      (:names is null or name in (select value from json_each(:names)))
      and (:name_like is null or instr(lower(name), lower(:name_like)) > 0)

-- fragment: conditions [postgres]
      (cast(:names as jsonb) is null
          or name in (select value from jsonb_array_elements_text(:names) as given (value)))
      and (cast(:name_like as text) is null
          or strpos(lower(name collate "C"), lower(cast(:name_like as text) collate "C")) > 0)

-- name: find_newest
-- Newest first, a page at a time. Index: primary key.
select id
from flow
where id < :before
      and
-- include: conditions
order by id desc
limit :limit;

-- name: count_newest
-- How many. A program has as many flows as it defines.
-- scan: every flow counts
select count(*)
from flow
where
-- include: conditions
;

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

-- name: find_newest
-- Newest first, a page at a time. Index: primary key.
select id
from flow
where id < :before and (name = :name or :name is null)
order by id desc
limit :limit;

-- name: count_newest
-- How many. A program has as many flows as it defines.
-- scan: every flow counts
select count(*) from flow where (name = :name or :name is null);

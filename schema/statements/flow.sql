-- Flows: one row per name.

-- name: insert
-- Nothing when the name is there. Key: name.
insert into flow (id, name, created, updated)
values (:id, :name, :now, :now)
on conflict (name) do nothing;

-- name: id_by_name
-- Index: unique name.
select id from flow where name = :name;

-- name: all
-- Every flow, by name. A program has as many as it defines.
select id, name, created from flow order by name;

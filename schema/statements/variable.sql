-- Variables: a few rows, read by name.

-- name: by_name
-- Index: unique name.
select id, name, value as json_value, tags, created, updated
from variable
where name = :name;

-- name: insert
-- Nothing when the name is there. Key: name.
insert into variable (id, name, value, tags, created, updated)
values (:id, :name, :json_value, :tags, :now, :now)
on conflict (name) do nothing;

-- name: update
-- Index: unique name.
update variable set value = :json_value, tags = :tags, updated = :now where name = :name;

-- name: delete
-- Index: unique name.
delete from variable where name = :name;

-- name: get_many [sqlite]
-- By id, for people, in the order of the ids. Index: primary key.
select variable.id, variable.name, variable.value as json_value, variable.tags, variable.created,
       variable.updated
from json_each(:ids) as wanted
join variable on variable.id = unhex(wanted.value, '-')
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select variable.id, variable.name, variable.value as json_value, variable.tags, variable.created,
       variable.updated
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join variable on variable.id = wanted.value::uuid
order by wanted.key;

-- Finding. The filters that are given besides the one that leads, each off when its value is NULL.

-- fragment: conditions [sqlite]
      and (:ids is null or variable.id in (select unhex(value, '-') from json_each(:ids)))
      and (:names is null or variable.name in (select value from json_each(:names)))
      and (:name_like is null or instr(lower(variable.name), lower(:name_like)) > 0)
      and (:tags is null or has_all(tags, :tags))
      and (:any_tags is null
          or exists (
              select value from json_each(:any_tags)
              intersect
              select value from json_each(tags)
          ))
      and (:has_tags is null or (tags <> '[]') = :has_tags)

-- fragment: conditions [postgres]
      and (cast(:ids as jsonb) is null
          or variable.id in (select value::uuid from jsonb_array_elements_text(:ids) as given (value)))
      and (cast(:names as jsonb) is null
          or variable.name in (select value from jsonb_array_elements_text(:names) as given (value)))
      and (cast(:name_like as text) is null
          or strpos(lower(variable.name collate "C"), lower(cast(:name_like as text) collate "C")) > 0)
      and (cast(:tags as jsonb) is null or has_all(tags, :tags))
      and (cast(:any_tags as jsonb) is null
          or tags ?| array(select jsonb_array_elements_text(:any_tags)))
      and (cast(:has_tags as boolean) is null or (tags <> '[]') = :has_tags)

-- name: find_by_id
-- Index: primary key.
select variable.id
from variable
where variable.id = :lead_id and variable.id < :before
-- include: conditions
order by variable.id desc
limit :limit;

-- name: count_by_id
-- How many. Index: primary key.
select count(*)
from variable
where variable.id = :lead_id
-- include: conditions
;

-- name: find_by_name
-- Index: unique name.
select variable.id
from variable
where variable.name = :lead and variable.id < :before
-- include: conditions
order by variable.id desc
limit :limit;

-- name: count_by_name
-- How many. Index: unique name.
select count(*)
from variable
where variable.name = :lead
-- include: conditions
;

-- name: find_newest
-- Index: primary key.
select variable.id
from variable
where variable.id < :before
-- include: conditions
order by variable.id desc
limit :limit;

-- name: count_newest
-- How many. Index: primary key.
-- scan: there are a few variables
select count(*)
from variable
where true
-- include: conditions
;

-- name: find_name_asc
-- scan: there are a few variables
select variable.id, variable.name as after_key
from variable
where variable.name >= :after_name and (variable.name, variable.id) > (:after_name, :after_id)
-- include: conditions
order by variable.name asc, variable.id asc
limit :limit;

-- name: find_name_desc
-- scan: there are a few variables
select variable.id, variable.name as after_key
from variable
where variable.name <= :after_name and (variable.name, variable.id) < (:after_name, :after_id)
-- include: conditions
order by variable.name desc, variable.id desc
limit :limit;

-- name: find_updated_desc
-- scan: there are a few variables
select variable.id, variable.updated as after_key
from variable
where variable.updated <= :after_key and (variable.updated, variable.id) < (:after_key, :after_id)
-- include: conditions
order by variable.updated desc, variable.id desc
limit :limit;

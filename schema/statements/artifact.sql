-- Artifacts: what runs show to people.

-- name: insert
-- Nothing when the id is there: a repeat of the same write.
insert into artifact (
    id, key, type, description, data, metadata, flow_run_id, task_run_id, created, updated
)
values (
    :id, :key, :type, :description, :json_data, :metadata, :flow_run_id, :task_run_id, :now, :now
)
on conflict (id) do nothing;

-- name: update
-- What is given, NULL for what stays. Index: primary key.
update artifact
set data = coalesce(:json_data, data), description = coalesce(:description, description),
    updated = :now
where id = :id;

-- name: delete
-- Index: primary key.
delete from artifact where id = :id;

-- name: key_of
-- Index: primary key.
select key from artifact where id = :id;

-- name: newest_of_key
-- Index: artifact_by_key.
select id from artifact where key = :key order by id desc limit 1;

-- name: get_many [sqlite]
-- By id, for people, in the order of the ids. Index: primary key.
select artifact.id, artifact.key, artifact.type, artifact.description,
       artifact.data as json_data, artifact.metadata, artifact.flow_run_id, artifact.task_run_id,
       artifact.created, artifact.updated
from json_each(:ids) as wanted
join artifact on artifact.id = unhex(wanted.value, '-')
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select artifact.id, artifact.key, artifact.type, artifact.description,
       artifact.data as json_data, artifact.metadata, artifact.flow_run_id, artifact.task_run_id,
       artifact.created, artifact.updated
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join artifact on artifact.id = wanted.value::uuid
order by wanted.key;

-- Finding. The filters that are given besides the one that leads, each off when its value is NULL.

-- fragment: conditions [sqlite]
      and (:ids is null or artifact.id in (select unhex(value, '-') from json_each(:ids)))
      and (:keys is null or artifact.key in (select value from json_each(:keys)))
      and (:key_like is null or instr(lower(artifact.key), lower(:key_like)) > 0)
      and (:has_key is null or (artifact.key is not null) = :has_key)
      and (:flow_run_ids is null or artifact.flow_run_id in (select unhex(value, '-') from json_each(:flow_run_ids)))
      and (:task_run_ids is null or artifact.task_run_id in (select unhex(value, '-') from json_each(:task_run_ids)))
      and (:types is null or artifact.type in (select value from json_each(:types)))
      and (:not_types is null or artifact.type is null
          or artifact.type not in (select value from json_each(:not_types)))
      and (:is_latest is null
          or exists (
              select 1 from artifact_collection as newest
              where newest.key = artifact.key and newest.latest_id = artifact.id
          ) = :is_latest)

-- fragment: conditions [postgres]
      and (cast(:ids as jsonb) is null
          or artifact.id in (select value::uuid from jsonb_array_elements_text(:ids) as given (value)))
      and (cast(:keys as jsonb) is null
          or artifact.key in (select value from jsonb_array_elements_text(:keys) as given (value)))
      and (cast(:key_like as text) is null
          or strpos(lower(artifact.key collate "C"), lower(cast(:key_like as text) collate "C")) > 0)
      and (cast(:has_key as boolean) is null or (artifact.key is not null) = :has_key)
      and (cast(:flow_run_ids as jsonb) is null
          or artifact.flow_run_id in (select value::uuid from jsonb_array_elements_text(:flow_run_ids) as given (value)))
      and (cast(:task_run_ids as jsonb) is null
          or artifact.task_run_id in (select value::uuid from jsonb_array_elements_text(:task_run_ids) as given (value)))
      and (cast(:types as jsonb) is null
          or artifact.type in (select value from jsonb_array_elements_text(:types) as given (value)))
      and (cast(:not_types as jsonb) is null or artifact.type is null
          or artifact.type not in (select value from jsonb_array_elements_text(:not_types) as given (value)))
      and (cast(:is_latest as boolean) is null
          or exists (
              select 1 from artifact_collection as newest
              where newest.key = artifact.key and newest.latest_id = artifact.id
          ) = :is_latest)

-- name: find_by_id
-- Index: primary key.
select artifact.id
from artifact
where artifact.id = :lead_id and artifact.id < :before
-- include: conditions
order by artifact.id desc
limit :limit;

-- name: count_by_id
-- How many. Index: primary key.
select count(*)
from artifact
where artifact.id = :lead_id
-- include: conditions
;

-- name: find_by_key
-- Index: artifact_by_key.
select artifact.id
from artifact
where artifact.key = :lead and artifact.id < :before
-- include: conditions
order by artifact.id desc
limit :limit;

-- name: count_by_key
-- How many. Index: artifact_by_key.
select count(*)
from artifact
where artifact.key = :lead
-- include: conditions
;

-- name: find_by_task_run
-- Index: artifact_by_task_run.
select artifact.id
from artifact
where artifact.task_run_id = :lead_id and artifact.id < :before
-- include: conditions
order by artifact.id desc
limit :limit;

-- name: count_by_task_run
-- How many. Index: artifact_by_task_run.
select count(*)
from artifact
where artifact.task_run_id = :lead_id
-- include: conditions
;

-- name: find_by_flow_run
-- Index: artifact_by_flow_run.
select artifact.id
from artifact
where artifact.flow_run_id = :lead_id and artifact.id < :before
-- include: conditions
order by artifact.id desc
limit :limit;

-- name: count_by_flow_run
-- How many. Index: artifact_by_flow_run.
select count(*)
from artifact
where artifact.flow_run_id = :lead_id
-- include: conditions
;

-- name: find_newest
-- Index: primary key.
select artifact.id
from artifact
where artifact.id < :before
-- include: conditions
order by artifact.id desc
limit :limit;

-- name: count_newest
-- How many. Index: primary key.
-- scan: looked at by people
select count(*)
from artifact
where true
-- include: conditions
;

-- name: find_key_asc
-- scan: looked at by people
select artifact.id, coalesce(artifact.key, '') as after_key
from artifact
where coalesce(artifact.key, '') >= :after_name and (coalesce(artifact.key, ''), artifact.id) > (:after_name, :after_id)
-- include: conditions
order by coalesce(artifact.key, '') asc, artifact.id asc
limit :limit;

-- name: find_key_desc
-- scan: looked at by people
select artifact.id, coalesce(artifact.key, '') as after_key
from artifact
where coalesce(artifact.key, '') <= :after_name and (coalesce(artifact.key, ''), artifact.id) < (:after_name, :after_id)
-- include: conditions
order by coalesce(artifact.key, '') desc, artifact.id desc
limit :limit;

-- name: find_updated_desc
-- scan: looked at by people
select artifact.id, artifact.updated as after_key
from artifact
where artifact.updated <= :after_key and (artifact.updated, artifact.id) < (:after_key, :after_id)
-- include: conditions
order by artifact.updated desc, artifact.id desc
limit :limit;

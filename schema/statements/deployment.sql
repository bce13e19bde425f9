-- Deployments: a flow with parameters, a schedule and a queue, under a name.

-- name: insert
-- Nothing when the flow has a deployment of this name. Key: flow_id, name.
insert into deployment (id, flow_id, name, created, updated)
values (:id, :flow_id, :name, :now, :now)
on conflict (flow_id, name) do nothing;

-- name: get
-- Index: unique flow_id, name.
select id, flow_id, name, version, description, tags, labels, parameters,
       parameter_openapi_schema, enforce_parameter_schema, paused, path, entrypoint, job_variables,
       work_queue_id, concurrency_limit, concurrency_options, status, last_polled, created, updated
from deployment
where flow_id = :flow_id and name = :name;

-- name: get_locked [sqlite]
-- The same, for a change of some of its fields. The IMMEDIATE transaction it runs in locks
-- everything. Index: unique flow_id, name.
select id, flow_id, name, version, description, tags, labels, parameters,
       parameter_openapi_schema, enforce_parameter_schema, paused, path, entrypoint, job_variables,
       work_queue_id, concurrency_limit, concurrency_options, status, last_polled, created, updated
from deployment
where flow_id = :flow_id and name = :name;

-- name: get_locked [postgres]
-- The same, one at a time for each deployment until the transaction ends.
select id, flow_id, name, version, description, tags, labels, parameters,
       parameter_openapi_schema, enforce_parameter_schema, paused, path, entrypoint, job_variables,
       work_queue_id, concurrency_limit, concurrency_options, status, last_polled, created, updated
from deployment
where flow_id = :flow_id and name = :name
for no key update;

-- name: update
-- Index: primary key.
update deployment
set version = :version, description = :description, tags = :tags, labels = :labels,
    parameters = :parameters, parameter_openapi_schema = :parameter_openapi_schema,
    enforce_parameter_schema = :enforce_parameter_schema, paused = :paused, path = :path,
    entrypoint = :entrypoint, job_variables = :job_variables, work_queue_id = :work_queue_id,
    concurrency_limit = :concurrency_limit, concurrency_options = :concurrency_options,
    updated = :now
where id = :id;

-- name: mark_polled
-- The deployments of queues that a worker asked take the time of that from them. A status is no
-- change of the deployment, so "updated" stays. Index: deployment_by_work_queue.
update deployment
set status = 'READY', last_polled = queue.last_polled
from (
    select id, last_polled from work_queue where work_pool_id = :work_pool_id
) as queue
where deployment.work_queue_id = queue.id and queue.last_polled is not null
      and deployment.last_polled is distinct from queue.last_polled;

-- name: find [sqlite]
-- Deployments by what is given of flow, name, and tags: all of some, any of some. "text" is looked
-- for in the name as it is, % and _ included, and in either case of A to Z. A page at a time:
-- "after" is the last id of the page before. Index: primary key.
select id, flow_id, name, version, description, tags, labels, parameters,
       parameter_openapi_schema, enforce_parameter_schema, paused, path, entrypoint, job_variables,
       work_queue_id, concurrency_limit, concurrency_options, status, last_polled, created, updated
from deployment
where id > :after
      and (flow_id = :flow_id or :flow_id is null)
      and (:text is null or instr(lower(name), lower(:text)) > 0)
      and (
          :all_tags is null
          or not exists (
              select value from json_each(:all_tags)
              except
              select value from json_each(deployment.tags)
          )
      )
      and (
          :any_tags is null
          or exists (
              select value from json_each(:any_tags)
              intersect
              select value from json_each(deployment.tags)
          )
      )
order by id
limit :limit;

-- name: find [postgres]
-- The same. The collation makes lower() mean A to Z whatever the database's own locale is.
select id, flow_id, name, version, description, tags, labels, parameters,
       parameter_openapi_schema, enforce_parameter_schema, paused, path, entrypoint, job_variables,
       work_queue_id, concurrency_limit, concurrency_options, status, last_polled, created, updated
from deployment
where id > :after
      and (flow_id = :flow_id or :flow_id is null)
      and (
          cast(:text as text) is null
          or strpos(lower(name collate "C"), lower(cast(:text as text) collate "C")) > 0
      )
      and (cast(:all_tags as jsonb) is null or tags @> :all_tags)
      and (
          cast(:any_tags as jsonb) is null
          or tags ?| array(select jsonb_array_elements_text(:any_tags))
      )
order by id
limit :limit;

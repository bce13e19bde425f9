-- Flow runs. The current state is copied onto the run in the transaction that stores it.

-- fragment: new
insert into flow_run (
    id, flow_id, name, state_id, state_type, state_name, state_timestamp, run_count,
    expected_start_time, next_scheduled_start_time, start_time, end_time, total_run_time,
    owner_id, epoch, on_crash, parameters, unstored_parameters, parameters_hash, entrypoint,
    flow_version, idempotency_key, tags, empirical_policy, parent_task_run_id, created, updated
)
select
    :id, flow.id, :name, :state_id, :state_type, :state_name, :state_timestamp, :run_count,
    :expected_start_time, :next_scheduled_start_time, :start_time, :end_time, :total_run_time,
    :owner_id, :epoch, :on_crash, :parameters, :unstored_parameters, :parameters_hash, :entrypoint,
    :flow_version, :idempotency_key, :tags, :empirical_policy, :parent_task_run_id, :now, :now
from flow
where flow.name = :flow_name

-- name: insert [sqlite]
-- A new run of a flow by its name, in its first state or states. Nothing when the id is there, a
-- repeat of the same write, when another run of the flow has its idempotency key, when there is no
-- such flow yet, or when its owner is not written down as a process that lives. Indexes: name of
-- flow, primary key of process.
-- include: new
      and (:owner_id is null
          or exists (
              select 1 from process where process.id = :owner_id and process.ended is null
          ))
on conflict do nothing;

-- name: insert [postgres]
-- The same; and nothing when the lease of the owner is half over, for it begins anew with each run.
-- include: new
      and (cast(:owner_id as uuid) is null
          or exists (
              select 1 from process
              where process.id = :owner_id and process.ended is null
                    and not coalesce(
                        process.expires
                            < cast(extract(epoch from now()) * 1000000 as bigint) + process.lease / 2,
                        false
                    )
          ))
on conflict do nothing;

-- name: by_idempotency_key
-- The run of a flow that has a key. Indexes: name of flow, flow_run_by_idempotency_key.
select flow_run.id
from flow
join flow_run on flow_run.flow_id = flow.id
where flow.name = :flow_name and flow_run.idempotency_key = :idempotency_key;

-- name: for_transition [sqlite]
-- What the rules read. The IMMEDIATE transaction it runs in locks all rows. Index: primary key.
select flow_run.state_id, flow_run.state_type, flow_run.state_name, flow_run.state_timestamp,
       flow_run.run_count, flow_run.expected_start_time, flow_run.next_scheduled_start_time,
       flow_run.start_time, flow_run.end_time, flow_run.total_run_time, flow_run.empirical_policy,
       flow_run.name, flow_run.parent_task_run_id, flow_run.entrypoint, flow_run.deployment_id,
       flow_run.infrastructure_pid, flow_run.epoch
from flow_run
where flow_run.id = :id;

-- name: for_transition [postgres]
-- The same, with the run locked until the transaction ends.
select flow_run.state_id, flow_run.state_type, flow_run.state_name, flow_run.state_timestamp,
       flow_run.run_count, flow_run.expected_start_time, flow_run.next_scheduled_start_time,
       flow_run.start_time, flow_run.end_time, flow_run.total_run_time, flow_run.empirical_policy,
       flow_run.name, flow_run.parent_task_run_id, flow_run.entrypoint, flow_run.deployment_id,
       flow_run.infrastructure_pid, flow_run.epoch
from flow_run
where flow_run.id = :id
for update of flow_run;

-- name: update_state
-- Index: primary key.
update flow_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, run_count = :run_count,
    expected_start_time = :expected_start_time,
    next_scheduled_start_time = :next_scheduled_start_time, start_time = :start_time,
    end_time = :end_time, total_run_time = :total_run_time, updated = :now
where id = :id;

-- name: update_state_begun
-- The same for a run that has begun before and goes on: when it was to start, and when it did, stay,
-- and the indexes by them are not written. Index: primary key.
update flow_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, run_count = :run_count, end_time = :end_time,
    total_run_time = :total_run_time, updated = :now
where id = :id;

-- name: end
-- The end of a run, unless somebody has moved it from the state that its owner has left it in, or
-- has taken it. Index: primary key.
update flow_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, end_time = :end_time, total_run_time = :total_run_time,
    updated = :now
where id = :id and state_id = :last_state_id and epoch = :epoch;

-- name: update_policy
-- What a run may do by itself, when a rule has changed it. Index: primary key.
update flow_run
set empirical_policy = :empirical_policy
where id = :id;

-- name: change_owner
-- From here on, writes that name an earlier epoch change nothing. Index: primary key.
update flow_run
set owner_id = :owner_id, epoch = epoch + 1, auto_resumes = :auto_resumes,
    completed_at_resume = :completed_at_resume, updated = :now
where id = :id and epoch = :epoch;

-- name: auto_resumes
-- How often a run was resumed without being asked to, in a row, and how many calls had completed
-- then. Index: primary key.
select auto_resumes, completed_at_resume from flow_run where id = :id;

-- name: left_behind [sqlite]
-- A run whose owner has died and that asks to be resumed, if it still is that. Index: primary keys.
select flow_run.epoch
from flow_run
join process on process.id = flow_run.owner_id
where flow_run.id = :id and process.ended is not null and flow_run.on_crash = 'resume'
      and flow_run.state_type in ('PENDING', 'RUNNING', 'SCHEDULED');

-- name: left_behind [postgres]
-- The same; a take-over that is under way is waited for.
select flow_run.epoch
from flow_run
join process on process.id = flow_run.owner_id
where flow_run.id = :id and process.ended is not null and flow_run.on_crash = 'resume'
      and flow_run.state_type in ('PENDING', 'RUNNING', 'SCHEDULED')
for update of flow_run;

-- name: epoch [sqlite]
-- Whose writes count. Index: primary key.
select epoch from flow_run where id = :id;

-- name: epoch [postgres]
-- The same; a take-over that is under way is waited for. Index: primary key.
select epoch from flow_run where id = :id for share;

-- name: get_many [sqlite]
-- Runs by id, for people, in the order of the ids. Index: primary key.
select flow_run.id, flow_run.flow_id, flow.name as flow_name, flow_run.name, flow_run.state_id,
       flow_run.state_type, flow_run.state_name, flow_run.state_timestamp,
       current.message, current.state_details, current.data, current.data_format,
       flow_run.run_count, flow_run.expected_start_time, flow_run.next_scheduled_start_time,
       flow_run.start_time, flow_run.end_time, flow_run.total_run_time,
       flow_run.owner_id, flow_run.epoch, flow_run.on_crash,
       flow_run.parameters, flow_run.unstored_parameters, flow_run.entrypoint,
       flow_run.flow_version, flow_run.tags, flow_run.labels, flow_run.empirical_policy,
       flow_run.idempotency_key, flow_run.deployment_id, flow_run.updated,
       flow_run.parent_task_run_id, flow_run.created
from json_each(:ids) as wanted
join flow_run on flow_run.id = unhex(wanted.value, '-')
join flow on flow.id = flow_run.flow_id
left join flow_run_state as current
    on current.flow_run_id = flow_run.id and current.timestamp = flow_run.state_timestamp
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select flow_run.id, flow_run.flow_id, flow.name as flow_name, flow_run.name, flow_run.state_id,
       flow_run.state_type, flow_run.state_name, flow_run.state_timestamp,
       current.message, current.state_details, current.data, current.data_format,
       flow_run.run_count, flow_run.expected_start_time, flow_run.next_scheduled_start_time,
       flow_run.start_time, flow_run.end_time, flow_run.total_run_time,
       flow_run.owner_id, flow_run.epoch, flow_run.on_crash,
       flow_run.parameters, flow_run.unstored_parameters, flow_run.entrypoint,
       flow_run.flow_version, flow_run.tags, flow_run.labels, flow_run.empirical_policy,
       flow_run.idempotency_key, flow_run.deployment_id, flow_run.updated,
       flow_run.parent_task_run_id, flow_run.created
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join flow_run on flow_run.id = wanted.value::uuid
join flow on flow.id = flow_run.flow_id
left join flow_run_state as current
    on current.flow_run_id = flow_run.id and current.timestamp = flow_run.state_timestamp
order by wanted.key;

-- name: get_many_lock [postgres]
-- Before get_many, in a session that was opened for update: the runs stay as they are then read
-- until it ends. In the order of their ids, so that two sessions do not lock crosswise.
-- Index: primary key.
select flow_run.id
from jsonb_array_elements_text(:ids) as wanted (value)
join flow_run on flow_run.id = wanted.value::uuid
order by flow_run.id
for update of flow_run;

-- fragment: unfinished
    select id
    from flow_run
    where flow_id = :flow_id and parameters_hash = :parameters_hash
          and state_type <> 'COMPLETED' and state_type <> 'RUNNING' and parent_task_run_id is null
    union all
    select id
    from flow_run

-- name: unfinished_with_parameters [sqlite]
-- The newest run of a flow with equal parameters that has not completed. One that another flow
-- called is continued by that flow. Those that run are looked for among all that do: the plus keeps
-- SQLite from reading all runs of the flow, and "is not distinct from" Postgres. Index: flow_run_unfinished, flow_run_by_state.
select max(id) as id
from (
-- include: unfinished
    where state_type = 'RUNNING' and +flow_id = :flow_id and parameters_hash = :parameters_hash
          and parent_task_run_id is null
) as found;

-- name: unfinished_with_parameters [postgres]
-- The same.
select id
from (
-- include: unfinished
    where state_type = 'RUNNING' and flow_id is not distinct from :flow_id
          and parameters_hash = :parameters_hash and parent_task_run_id is null
) as found
order by id desc
limit 1;

-- name: to_put_back
-- What a dead process had claimed from a queue and not begun, with when it was due. The condition of
-- the index stands here word for word, as it does below: SQLite would not use it otherwise.
-- Index: flow_run_owned.
select flow_run.id, flow_run.epoch, pending.state_details
from flow_run
join flow_run_state as pending
    on pending.flow_run_id = flow_run.id and pending.timestamp = flow_run.state_timestamp
where flow_run.owner_id = :owner_id and flow_run.claim_id is not null and flow_run.run_count = 0
      and flow_run.end_time is null and flow_run.state_type <> 'RUNNING'
      and flow_run.state_type = 'PENDING'
order by flow_run.id
limit :limit;

-- name: put_back
-- It belongs to nobody, as before it was claimed. Index: primary key.
update flow_run
set owner_id = null, claim_id = null, epoch = epoch + 1, updated = :now
where id = :id and epoch = :epoch;

-- name: to_crash
-- What a dead process was running and nobody is to resume by itself, and the epoch in which it did.
-- Those that ran are looked for among all that do: "is not distinct from" keeps both engines from
-- reading all that the process has ever run. Index: flow_run_owned, flow_run_by_state.
select id, epoch
from flow_run
where owner_id = :owner_id and end_time is null and state_type <> 'RUNNING'
      and (on_crash = 'fail' or state_type = 'CANCELLING')
      and state_type <> 'PAUSED' and state_name <> 'NotReady'
union all
select id, epoch
from flow_run
where state_type = 'RUNNING' and owner_id is not distinct from :owner_id and on_crash = 'fail'
order by id
limit :limit;

-- name: next_epoch
-- From here on, writes that name an earlier epoch change nothing. Index: primary key.
update flow_run
set epoch = epoch + 1, updated = :now
where id = :id and epoch = :epoch;

-- name: fence_off
-- The same for a run of which only the owner is known. Index: primary key.
update flow_run
set epoch = epoch + 1, updated = :now
where id = :id and owner_id = :owner_id;

-- name: leave_to
-- The same for a run that is taken from a process that lives. Index: primary key.
update flow_run
set owner_id = :owner_id, epoch = epoch + 1, updated = :now
where id = :id and epoch = :epoch;

-- name: to_leave
-- What a dead process has left to be gone on with: paused, or to be resumed; found as
-- above. Index: flow_run_owned, flow_run_by_state.
select id, epoch, on_crash, state_type
from flow_run
where owner_id = :owner_id and end_time is null and state_type <> 'RUNNING'
union all
select id, epoch, on_crash, state_type
from flow_run
where state_type = 'RUNNING' and owner_id is not distinct from :owner_id
order by id;

-- name: family [sqlite]
-- A run and all that it called, and what these called, as far as it has not ended; the callers come
-- first. Index: task_run_by_flow_run, flow_run_by_parent, primary key.
with recursive family (id, depth) as (
    select :id, 0
    union all
    select child.id, family.depth + 1
    from family
    cross join task_run on task_run.flow_run_id = family.id
    cross join flow_run as child on child.parent_task_run_id = task_run.id
)
select flow_run.id, flow_run.epoch, flow_run.owner_id, flow_run.on_crash, flow_run.state_type
from family
cross join flow_run on flow_run.id = family.id
where flow_run.state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED')
order by family.depth, flow_run.id;

-- name: family [postgres]
-- The same.
with recursive family (id, depth) as (
    select cast(:id as uuid), 0
    union all
    select child.id, family.depth + 1
    from family
    join task_run on task_run.flow_run_id = family.id
    join flow_run as child on child.parent_task_run_id = task_run.id
)
select flow_run.id, flow_run.epoch, flow_run.owner_id, flow_run.on_crash, flow_run.state_type
from family
join flow_run on flow_run.id = family.id
where flow_run.state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED')
order by family.depth, flow_run.id;

-- name: caller_of
-- The flow run that called a flow run, if any. Index: primary keys.
select task_run.flow_run_id
from flow_run
join task_run on task_run.id = flow_run.parent_task_run_id
where flow_run.id = :id;

-- name: moved_among [sqlite]
-- Those of the runs at work in a process that somebody has moved, or taken since the epoch in which
-- they run there. Index: primary key.
select flow_run.id, flow_run.epoch
from json_each(:runs) as wanted
join flow_run on flow_run.id = unhex(wanted.value ->> 'id', '-')
where flow_run.state_type in ('CANCELLING', 'CANCELLED', 'PAUSED')
      or flow_run.epoch > wanted.value ->> 'epoch';

-- name: moved_among [postgres]
-- The same.
select flow_run.id, flow_run.epoch
from jsonb_to_recordset(:runs) as wanted (id uuid, epoch bigint)
join flow_run on flow_run.id = wanted.id
where flow_run.state_type in ('CANCELLING', 'CANCELLED', 'PAUSED')
      or flow_run.epoch > wanted.epoch;

-- name: paused
-- Runs that are paused, with what their state says of the time they have. Index: flow_run_by_state.
select flow_run.id, flow_run.owner_id, paused.id as state_id, paused.state_details
from flow_run
join flow_run_state as paused
    on paused.flow_run_id = flow_run.id and paused.timestamp = flow_run.state_timestamp
where flow_run.state_type = 'PAUSED'
order by flow_run.id;

-- name: release
-- Its process has done its part of it. Index: primary key.
update flow_run
set owner_id = null, updated = :now
where id = :id and epoch = :epoch;

-- name: child_of
-- The newest flow run that a task run called. Index: flow_run_by_parent.
select id, state_type
from flow_run
where parent_task_run_id = :parent_task_run_id
order by id desc
limit 1;

-- name: to_resume [sqlite]
-- Runs whose owner died and that asked to be resumed: those that ran when it did, found by their
-- state, and those that waited. Index: flow_run_owned.
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from flow_run
cross join process on process.id = flow_run.owner_id
join flow on flow.id = flow_run.flow_id
where flow_run.state_type = 'RUNNING' and flow_run.on_crash = 'resume'
      and flow_run.parent_task_run_id is null and process.ended is not null
union all
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from process
cross join flow_run on flow_run.owner_id = process.id
join flow on flow.id = flow_run.flow_id
where flow_run.end_time is null and flow_run.state_type <> 'RUNNING'
      and flow_run.state_type in ('PENDING', 'SCHEDULED') and flow_run.on_crash = 'resume'
      and flow_run.parent_task_run_id is null and process.ended is not null
order by 1;

-- name: to_resume [postgres]
-- The same; those that ran are found by state or by owner, whichever the planner counted fewer of.
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from flow_run
join process on process.id = flow_run.owner_id
join flow on flow.id = flow_run.flow_id
where flow_run.state_type = 'RUNNING' and flow_run.on_crash = 'resume'
      and flow_run.parent_task_run_id is null and process.ended is not null
union all
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from process
join flow_run on flow_run.owner_id = process.id
join flow on flow.id = flow_run.flow_id
where flow_run.end_time is null and flow_run.state_type <> 'RUNNING'
      and flow_run.state_type in ('PENDING', 'SCHEDULED') and flow_run.on_crash = 'resume'
      and flow_run.parent_task_run_id is null and process.ended is not null
order by 1;

-- Finding. The filters that are given besides the one that leads, each off when its value is NULL.
-- Lists are JSON arrays. Included below, word for word, where a statement says so.

-- fragment: conditions [sqlite]
      -- has_all is a function of ours, and not called where the first tag is nowhere in the text;
      -- what has a backslash may be another way to write it.
      and (:tags is null
          or (instr(tags, coalesce(:tags ->> 0, '')) > 0 or instr(tags, '\') > 0)
          and has_all(tags, :tags))
      and (:ids is null or flow_run.id in (select unhex(value, '-') from json_each(:ids)))
      and (:not_ids is null
          or flow_run.id not in (select unhex(value, '-') from json_each(:not_ids)))
      and (:names is null or flow_run.name in (select value from json_each(:names)))
      and (:name_like is null or instr(lower(flow_run.name), lower(:name_like)) > 0)
      and (:flow_ids is null or flow_id in (select unhex(value, '-') from json_each(:flow_ids)))
      and (:flow_name_like is null
          or flow_id in (
              select id from flow where instr(lower(name), lower(:flow_name_like)) > 0
          ))
      and (:any_tags is null
          or exists (
              select value from json_each(:any_tags)
              intersect
              select value from json_each(tags)
          ))
      and (:has_tags is null or (tags <> '[]') = :has_tags)
      and (:state_types is null or state_type in (select value from json_each(:state_types)))
      and (:state_names is null or state_name in (select value from json_each(:state_names)))
      and (:not_state_types is null
          or state_type not in (select value from json_each(:not_state_types)))
      and (:not_state_names is null
          or state_name not in (select value from json_each(:not_state_names)))
      and (:flow_versions is null or flow_version in (select value from json_each(:flow_versions)))
      and (:start_time_after is null or start_time >= :start_time_after)
      and (:start_time_before is null or start_time <= :start_time_before)
      and (:has_start_time is null or (start_time is not null) = :has_start_time)
      and (:end_time_after is null or end_time >= :end_time_after)
      and (:end_time_before is null or end_time <= :end_time_before)
      and (:has_end_time is null or (end_time is not null) = :has_end_time)
      and (:expected_start_time_after is null or expected_start_time >= :expected_start_time_after)
      and (:expected_start_time_before is null
          or expected_start_time <= :expected_start_time_before)
      and (:next_scheduled_start_time_after is null
          or next_scheduled_start_time >= :next_scheduled_start_time_after)
      and (:next_scheduled_start_time_before is null
          or next_scheduled_start_time <= :next_scheduled_start_time_before)
      and (:parent_task_run_ids is null
          or parent_task_run_id in (select unhex(value, '-') from json_each(:parent_task_run_ids)))
      and (:parent_flow_run_ids is null
          or parent_task_run_id in (
              select id from task_run
              where flow_run_id in (select unhex(value, '-') from json_each(:parent_flow_run_ids))
          ))
      and (:is_subflow is null or (parent_task_run_id is not null) = :is_subflow)
      and (:idempotency_keys is null
          or idempotency_key in (select value from json_each(:idempotency_keys)))
      and (:not_idempotency_keys is null or idempotency_key is null
          or idempotency_key not in (select value from json_each(:not_idempotency_keys)))
      and (:deployment_ids is null
          or deployment_id in (select unhex(value, '-') from json_each(:deployment_ids)))
      and (:has_deployment is null or (deployment_id is not null) = :has_deployment)
      and (:work_queue_names is null
          or work_queue_id in (
              select id from work_queue
              where name in (select value from json_each(:work_queue_names))
          ))

-- fragment: conditions [postgres]
-- Without its value a parameter has no type, so each is cast where it is compared with NULL.
      and (cast(:ids as jsonb) is null
          or flow_run.id in (select value::uuid from jsonb_array_elements_text(:ids) as given (value)))
      and (cast(:not_ids as jsonb) is null
          or flow_run.id not in (select value::uuid from jsonb_array_elements_text(:not_ids) as given (value)))
      and (cast(:names as jsonb) is null
          or flow_run.name in (select value from jsonb_array_elements_text(:names) as given (value)))
      and (cast(:name_like as text) is null
          or strpos(lower(flow_run.name collate "C"), lower(cast(:name_like as text) collate "C")) > 0)
      and (cast(:flow_ids as jsonb) is null
          or flow_id in (select value::uuid from jsonb_array_elements_text(:flow_ids) as given (value)))
      and (cast(:flow_name_like as text) is null
          or flow_id in (
              select id from flow
              where strpos(lower(name collate "C"), lower(cast(:flow_name_like as text) collate "C")) > 0
          ))
      and (cast(:tags as jsonb) is null or has_all(tags, :tags))
      and (cast(:any_tags as jsonb) is null
          or tags ?| array(select jsonb_array_elements_text(:any_tags)))
      and (cast(:has_tags as boolean) is null or (tags <> '[]') = :has_tags)
      and (cast(:state_types as jsonb) is null
          or state_type in (select value from jsonb_array_elements_text(:state_types) as given (value)))
      and (cast(:state_names as jsonb) is null
          or state_name in (select value from jsonb_array_elements_text(:state_names) as given (value)))
      and (cast(:not_state_types as jsonb) is null
          or state_type not in (select value from jsonb_array_elements_text(:not_state_types) as given (value)))
      and (cast(:not_state_names as jsonb) is null
          or state_name not in (select value from jsonb_array_elements_text(:not_state_names) as given (value)))
      and (cast(:flow_versions as jsonb) is null
          or flow_version in (select value from jsonb_array_elements_text(:flow_versions) as given (value)))
      and (cast(:start_time_after as bigint) is null or start_time >= :start_time_after)
      and (cast(:start_time_before as bigint) is null or start_time <= :start_time_before)
      and (cast(:has_start_time as boolean) is null or (start_time is not null) = :has_start_time)
      and (cast(:end_time_after as bigint) is null or end_time >= :end_time_after)
      and (cast(:end_time_before as bigint) is null or end_time <= :end_time_before)
      and (cast(:has_end_time as boolean) is null or (end_time is not null) = :has_end_time)
      and (cast(:expected_start_time_after as bigint) is null
          or expected_start_time >= :expected_start_time_after)
      and (cast(:expected_start_time_before as bigint) is null
          or expected_start_time <= :expected_start_time_before)
      and (cast(:next_scheduled_start_time_after as bigint) is null
          or next_scheduled_start_time >= :next_scheduled_start_time_after)
      and (cast(:next_scheduled_start_time_before as bigint) is null
          or next_scheduled_start_time <= :next_scheduled_start_time_before)
      and (cast(:parent_task_run_ids as jsonb) is null
          or parent_task_run_id in (select value::uuid from jsonb_array_elements_text(:parent_task_run_ids) as given (value)))
      and (cast(:parent_flow_run_ids as jsonb) is null
          or parent_task_run_id in (
              select id from task_run
              where flow_run_id in (
                  select value::uuid
                  from jsonb_array_elements_text(:parent_flow_run_ids) as given (value)
              )
          ))
      and (cast(:is_subflow as boolean) is null or (parent_task_run_id is not null) = :is_subflow)
      and (cast(:idempotency_keys as jsonb) is null
          or idempotency_key in (select value from jsonb_array_elements_text(:idempotency_keys) as given (value)))
      and (cast(:not_idempotency_keys as jsonb) is null or idempotency_key is null
          or idempotency_key not in (select value from jsonb_array_elements_text(:not_idempotency_keys) as given (value)))
      and (cast(:deployment_ids as jsonb) is null
          or deployment_id in (select value::uuid from jsonb_array_elements_text(:deployment_ids) as given (value)))
      and (cast(:has_deployment as boolean) is null
          or (deployment_id is not null) = :has_deployment)
      and (cast(:work_queue_names as jsonb) is null
          or work_queue_id in (
              select id from work_queue
              where name in (
                  select value from jsonb_array_elements_text(:work_queue_names) as given (value)
              )
          ))

-- One statement for each filter that can lead, and for each order. Newest first, unless the name
-- says otherwise; a page at a time: "before" is the last id of the page before. Where a column
-- leads the order, "after_key" is its last value as well.

-- name: find_by_id
-- Index: primary key.
select id
from flow_run
where flow_run.id = :lead_id and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_name
-- Index: flow_run_by_name.
select id
from flow_run
where name = :lead and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_flow
-- Index: flow_run_by_flow.
select id
from flow_run
where flow_id = :lead_id and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_parent
-- Index: flow_run_by_parent.
select id
from flow_run
where parent_task_run_id = :lead_id and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_parent_run
-- Index: task_run_by_flow_run, flow_run_by_parent.
select id
from flow_run
where parent_task_run_id in (select id from task_run where flow_run_id = :lead_id) and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_state
-- Index: flow_run_by_state.
select id
from flow_run
where state_type = :lead and flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_newest
-- Index: primary key.
select id
from flow_run
where flow_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_start_asc
-- Index: flow_run_by_start.
select id, coalesce(start_time, expected_start_time) as after_key
from flow_run
where coalesce(start_time, expected_start_time) >= :after_key and (coalesce(start_time, expected_start_time), id) > (:after_key, :after_id)
-- include: conditions
order by coalesce(start_time, expected_start_time) asc, id asc
limit :limit;

-- name: find_start_desc
-- Index: flow_run_by_start.
select id, coalesce(start_time, expected_start_time) as after_key
from flow_run
where coalesce(start_time, expected_start_time) <= :after_key and (coalesce(start_time, expected_start_time), id) < (:after_key, :after_id)
-- include: conditions
order by coalesce(start_time, expected_start_time) desc, id desc
limit :limit;

-- name: find_expected_asc
-- Index: flow_run_by_expected_start.
select id, expected_start_time as after_key
from flow_run
where expected_start_time >= :after_key and (expected_start_time, id) > (:after_key, :after_id)
-- include: conditions
order by expected_start_time asc, id asc
limit :limit;

-- name: find_expected_desc
-- Index: flow_run_by_expected_start.
select id, expected_start_time as after_key
from flow_run
where expected_start_time <= :after_key and (expected_start_time, id) < (:after_key, :after_id)
-- include: conditions
order by expected_start_time desc, id desc
limit :limit;

-- name: find_name_asc
-- Index: flow_run_by_name.
select id, name as after_key
from flow_run
where name >= :after_name and (name, id) > (:after_name, :after_id)
-- include: conditions
order by name asc, id asc
limit :limit;

-- name: find_name_desc
-- Index: flow_run_by_name.
select id, name as after_key
from flow_run
where name <= :after_name and (name, id) < (:after_name, :after_id)
-- include: conditions
order by name desc, id desc
limit :limit;

-- name: find_next_asc
-- Those that are not scheduled come last.
-- scan: looked at by people, and no run pays for an index
select id, coalesce(next_scheduled_start_time, 9223372036854775807) as after_key
from flow_run
where coalesce(next_scheduled_start_time, 9223372036854775807) >= :after_key
      and (coalesce(next_scheduled_start_time, 9223372036854775807), id) > (:after_key, :after_id)
-- include: conditions
order by coalesce(next_scheduled_start_time, 9223372036854775807) asc, id asc
limit :limit;

-- name: find_end_desc
-- Those that have not ended come last.
-- scan: looked at by people, and no run pays for an index
select id, coalesce(end_time, -9223372036854775807) as after_key
from flow_run
where coalesce(end_time, -9223372036854775807) <= :after_key and (coalesce(end_time, -9223372036854775807), id) < (:after_key, :after_id)
-- include: conditions
order by coalesce(end_time, -9223372036854775807) desc, id desc
limit :limit;

-- name: count_by_id
-- How many. Index: primary key.
select count(*)
from flow_run
where flow_run.id = :lead_id
-- include: conditions
;

-- name: count_by_name
-- How many. Index: flow_run_by_name.
select count(*)
from flow_run
where name = :lead
-- include: conditions
;

-- name: count_by_flow
-- How many. Index: flow_run_by_flow.
select count(*)
from flow_run
where flow_id = :lead_id
-- include: conditions
;

-- name: count_by_parent
-- How many. Index: flow_run_by_parent.
select count(*)
from flow_run
where parent_task_run_id = :lead_id
-- include: conditions
;

-- name: count_by_parent_run
-- How many. Index: task_run_by_flow_run, flow_run_by_parent.
select count(*)
from flow_run
where parent_task_run_id in (select id from task_run where flow_run_id = :lead_id)
-- include: conditions
;

-- name: count_by_state
-- How many. Index: flow_run_by_state.
select count(*)
from flow_run
where state_type = :lead
-- include: conditions
;

-- name: count_newest
-- How many. Index: primary key.
-- scan: every run counts
select count(*)
from flow_run
where true
-- include: conditions
;

-- The same where nothing else is asked: answered by the index alone, without a look at any run.

-- name: count_all_by_flow
-- How many. Index: flow_run_by_flow.
select count(*)
from flow_run
where flow_id = :lead_id;

-- name: count_all_by_state
-- How many. Index: flow_run_by_state.
select count(*)
from flow_run
where state_type = :lead;

-- name: count_all_newest
-- How many; any index will do.
-- scan: every run counts
select count(*)
from flow_run;

-- Over time: by the bucket in which runs were expected to start, and by state. Times and durations
-- are microseconds.

-- fragment: bucket_runs [sqlite]
with recursive
stepped (starts, ends) as (
    select :start, :start + :step where :step is not null
    union all
    select ends, ends + :step from stepped where ends < :end
),
edge as (
    select value as starts, lead(value) over (order by key) as ends from json_each(:edges)
),
bucket as (
    select starts, ends from stepped
    union all
    select starts, ends from edge where ends is not null
)
select bucket.starts, bucket.ends,
       (
           select json_group_array(
               json_object(
                   'state_type', state_type, 'state_name', state_name, 'count_runs', runs,
                   'estimated_run_time', run_time, 'estimated_lateness', lateness
               ) order by state_type, state_name
           )
           from (
               select state_type, state_name, count(*) as runs,
                      sum(total_run_time + case
                          when state_type = 'RUNNING' then max(:now - state_timestamp, 0)
                          else 0
                      end) as run_time,
                      sum(max(coalesce(case
                          when start_time is not null then start_time
                          when state_type not in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
                              then :now
                      end - expected_start_time, 0), 0)) as lateness
               from flow_run
               where expected_start_time >= bucket.starts and expected_start_time < bucket.ends
                     and state_type is not null

-- fragment: bucket_order [sqlite]
               group by state_type, state_name
           ) as state
       ) as states
from bucket
order by bucket.starts

-- fragment: bucket_runs [postgres]
with
stepped as (
    -- nothing when step is NULL
    select series.starts, series.starts + :step as ends
    from generate_series(
        cast(:start as bigint), cast(:end as bigint) - 1, cast(:step as bigint)
    ) as series (starts)
),
edge as (
    select cast(value as bigint) as starts, lead(cast(value as bigint)) over (order by key) as ends
    from jsonb_array_elements_text(:edges) with ordinality as given (value, key)
),
bucket as (
    select starts, ends from stepped
    union all
    select starts, ends from edge where ends is not null
)
select bucket.starts, bucket.ends,
       (
           select coalesce(jsonb_agg(
               jsonb_build_object(
                   'state_type', state_type, 'state_name', state_name, 'count_runs', runs,
                   'estimated_run_time', run_time, 'estimated_lateness', lateness
               ) order by state_type collate "C", state_name collate "C"
           ), '[]')
           from (
               select state_type, state_name, count(*) as runs,
                      sum(total_run_time + case
                          when state_type = 'RUNNING' then greatest(:now - state_timestamp, 0)
                          else 0
                      end) as run_time,
                      sum(greatest(case
                          when start_time is not null then start_time
                          when state_type not in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
                              then :now
                      end - expected_start_time, 0)) as lateness
               from flow_run
               where expected_start_time >= bucket.starts and expected_start_time < bucket.ends
                     and state_type is not null

-- fragment: bucket_order [postgres]
               group by state_type, state_name
           ) as state
       ) as states
from bucket
order by bucket.starts

-- name: by_bucket
-- The buckets begin at "start" and every "step" after it, or, when there is no step, lie between the
-- given edges; those without a run are there too. A run is late by its start after the expected one,
-- or, while it has neither started nor ended, by the time that has passed since. max() is NULL as
-- soon as one of its arguments is. Index: flow_run_by_expected_start.
-- include: bucket_runs
-- include: conditions
-- include: bucket_order
;

-- name: all_by_bucket
-- The same where nothing is asked of the runs; a fifth less for each. Index: flow_run_by_expected_start.
-- include: bucket_runs
-- include: bucket_order
;

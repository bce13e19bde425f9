-- Flow runs. The current state is copied onto the run in the transaction that stores it.

-- name: insert
-- A new run in its first state or states. Nothing when the id is there: a repeat of the same write.
insert into flow_run (
    id, flow_id, name, state_id, state_type, state_name, state_timestamp, run_count,
    expected_start_time, next_scheduled_start_time, start_time, end_time, total_run_time,
    owner_id, epoch, on_crash, parameters, unstored_parameters, parameters_hash, entrypoint,
    flow_version, tags, empirical_policy, parent_task_run_id, created, updated
)
values (
    :id, :flow_id, :name, :state_id, :state_type, :state_name, :state_timestamp, :run_count,
    :expected_start_time, :next_scheduled_start_time, :start_time, :end_time, :total_run_time,
    :owner_id, :epoch, :on_crash, :parameters, :unstored_parameters, :parameters_hash, :entrypoint,
    :flow_version, :tags, :empirical_policy, :parent_task_run_id, :now, :now
)
on conflict (id) do nothing;

-- name: for_transition [sqlite]
-- What the rules read. The IMMEDIATE transaction it runs in locks all rows. Index: primary key.
select flow_run.id, flow_run.state_id, flow_run.state_type, flow_run.state_name,
       flow_run.state_timestamp, flow_run.run_count,
       flow_run.expected_start_time, flow_run.next_scheduled_start_time, flow_run.start_time,
       flow_run.end_time, flow_run.total_run_time, flow_run.empirical_policy,
       flow_run.name, flow_run.owner_id, flow_run.epoch
from flow_run
where flow_run.id = :id;

-- name: for_transition [postgres]
-- The same, with the run locked until the transaction ends.
select flow_run.id, flow_run.state_id, flow_run.state_type, flow_run.state_name,
       flow_run.state_timestamp, flow_run.run_count,
       flow_run.expected_start_time, flow_run.next_scheduled_start_time, flow_run.start_time,
       flow_run.end_time, flow_run.total_run_time, flow_run.empirical_policy,
       flow_run.name, flow_run.owner_id, flow_run.epoch
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

-- name: change_owner
-- From here on, writes that name an earlier epoch change nothing. Index: primary key.
update flow_run
set owner_id = :owner_id, epoch = epoch + 1, updated = :now
where id = :id and epoch = :epoch;

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
       flow_run.flow_version, flow_run.tags, flow_run.parent_task_run_id, flow_run.created
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
       flow_run.flow_version, flow_run.tags, flow_run.parent_task_run_id, flow_run.created
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

-- name: unfinished_with_parameters
-- The newest run of a flow with equal parameters that has not completed. One that another flow
-- called is continued by that flow. Index: flow_run_unfinished.
select id, name, state_type, owner_id
from flow_run
where flow_id = :flow_id and parameters_hash = :parameters_hash and state_type <> 'COMPLETED'
      and parent_task_run_id is null
order by id desc
limit 1;

-- name: to_crash
-- What a dead process was running and nobody is to resume by itself. Index: flow_run_owned.
select id
from flow_run
where owner_id = :owner_id and (on_crash = 'fail' or state_type = 'CANCELLING')
      and state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED')
      and state_type <> 'PAUSED'
order by id
limit :limit;

-- name: child_of
-- The newest flow run that a task run called. Index: flow_run_by_parent.
select id from flow_run where parent_task_run_id = :parent_task_run_id order by id desc limit 1;

-- name: to_resume [sqlite]
-- Runs whose owner died and that asked to be resumed. The states are those of the index, word for
-- word, or SQLite would not use it. Index: flow_run_owned.
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from process
cross join flow_run
join flow on flow.id = flow_run.flow_id
where flow_run.owner_id = process.id
      and process.ended is not null and flow_run.on_crash = 'resume'
      and flow_run.state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED')
      and flow_run.state_type in ('PENDING', 'RUNNING', 'SCHEDULED')
      and flow_run.parent_task_run_id is null
order by flow_run.id;

-- name: to_resume [postgres]
-- The same; the planner begins with the owners or with the states, whichever it counted fewer of.
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from process
join flow_run on flow_run.owner_id = process.id
join flow on flow.id = flow_run.flow_id
where process.ended is not null and flow_run.on_crash = 'resume'
      and flow_run.state_type in ('PENDING', 'RUNNING', 'SCHEDULED')
      and flow_run.parent_task_run_id is null
order by flow_run.id;

-- Finding. One statement for each filter that can lead, the most selective first; the filters that
-- are given besides narrow what it reads. Newest first, a page at a time: "before" is the last id of
-- the page before. has_all is ours on both engines: whether the first JSON array holds all of the
-- second.

-- name: find_by_name
-- Index: flow_run_by_name.
select id
from flow_run
where name = :name and id < :before
      and (flow_id = :flow_id or :flow_id is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags))
order by id desc
limit :limit;

-- name: find_by_flow
-- Index: flow_run_by_flow.
select id
from flow_run
where flow_id = :flow_id and id < :before
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags))
order by id desc
limit :limit;

-- name: find_by_state
-- Index: flow_run_by_state.
select id
from flow_run
where state_type = :state_type and id < :before
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags))
order by id desc
limit :limit;

-- name: find_newest
-- Index: primary key.
select id
from flow_run
where id < :before
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags))
order by id desc
limit :limit;

-- name: count_by_name
-- How many. Index: flow_run_by_name.
select count(*)
from flow_run
where name = :name
      and (flow_id = :flow_id or :flow_id is null)
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags));

-- name: count_by_flow
-- How many. Index: flow_run_by_flow.
select count(*)
from flow_run
where flow_id = :flow_id
      and (state_type = :state_type or :state_type is null)
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags));

-- name: count_by_state
-- How many. Index: flow_run_by_state.
select count(*)
from flow_run
where state_type = :state_type
      and (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags));

-- name: count_newest
-- How many. Index: primary key. A count over all reads all.
-- scan: every run counts
select count(*)
from flow_run
where (state_name = :state_name or :state_name is null)
      and (:without_tags = true or has_all(tags, :tags));

-- Task runs. The call of a task is found by (flow run, task key, dynamic key).

-- fragment: new_columns
    id, flow_run_id, parent_task_run_id, name, task_key, dynamic_key, call_number, state_id,
    state_type, state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time,
    next_scheduled_start_time, start_time, end_time, total_run_time, source_hash,
    task_version, tags, task_inputs, empirical_policy, owner_id, created

-- fragment: new_values
    :id, :flow_run_id, :parent_task_run_id, :name, :task_key, :dynamic_key, :call_number, :state_id,
    :state_type, :state_name, :state_timestamp, :run_count, :flow_run_run_count, :expected_start_time,
    :next_scheduled_start_time, :start_time, :end_time, :total_run_time, :source_hash,
    :task_version, :tags, :task_inputs, :empirical_policy, :owner_id, :created

-- name: insert
-- A new run in its first states. Nothing when the id is there: a repeat of the same write.
insert into task_run (
-- include: new_columns
)
values (
-- include: new_values
)
on conflict (id) do nothing;

-- name: insert_owned [sqlite]
-- The same, and nothing either when the flow run is of another epoch: its owner has lost it. The
-- IMMEDIATE transaction it runs in locks all rows. Index: primary keys.
insert into task_run (
-- include: new_columns
)
select
-- include: new_values
from flow_run
where flow_run.id = :flow_run_id and flow_run.epoch = :epoch
on conflict (id) do nothing;

-- name: insert_owned [postgres]
-- The same; a take-over that is under way is waited for. Index: primary keys.
with owner as (
    select flow_run.id from flow_run where id = :flow_run_id and epoch = :epoch for share
)
insert into task_run (
-- include: new_columns
)
select
-- include: new_values
from owner
on conflict (id) do nothing;

-- name: insert_whole [postgres]
-- The same with the states that it has gone through, as one statement; an answer only when it was
-- inserted. Index: primary keys.
with owner as (
    select flow_run.id from flow_run where id = :flow_run_id and epoch = :epoch for share
),
made as (
    insert into task_run (
-- include: new_columns
    )
    select
-- include: new_values
    from owner
    on conflict (id) do nothing
    returning id
),
past as (
    insert into task_run_state (
        task_run_id, timestamp, id, type, name, message, state_details, data, data_format
    )
    select made.id, state.*
    from made
    cross join (
        values
            (cast(:pending_timestamp as bigint), cast(:pending_id as uuid), 'PENDING',
             :pending_name, null, cast(null as jsonb), cast(null as bytea), null),
            (:running_timestamp, :running_id, 'RUNNING', :running_name, null, null, null, null),
            (:state_timestamp, :state_id, :state_type, :state_name, :message, :state_details, :data,
             :data_format)
    ) as state
)
select id from made;

-- name: for_transition [sqlite]
-- What the rules read, and the epoch of the flow run, or outside of flows its own, which fences off
-- an owner that lost it.
-- The IMMEDIATE transaction it runs in locks all rows. Index: primary keys.
select task_run.state_id, task_run.state_type, task_run.state_name, task_run.state_timestamp,
       task_run.run_count, task_run.expected_start_time, task_run.next_scheduled_start_time,
       task_run.start_time, task_run.end_time, task_run.total_run_time, task_run.empirical_policy,
       task_run.flow_run_run_count, flow_run.run_count as flow_run_attempt,
       flow_run.state_type as flow_run_state_type, coalesce(flow_run.epoch, task_run.epoch) as epoch
from task_run
left join flow_run on flow_run.id = task_run.flow_run_id
where task_run.id = :id;

-- name: for_transition [postgres]
-- The same, with the task run locked until the transaction ends. The flow run is locked before it
-- and against change: a take-over that is under way is waited for, and one that comes waits.
with owner as (
    select flow_run.id, flow_run.run_count, flow_run.state_type, flow_run.epoch
    from flow_run
    where flow_run.id = (select flow_run_id from task_run where id = :id)
    for share
)
select task_run.state_id, task_run.state_type, task_run.state_name, task_run.state_timestamp,
       task_run.run_count, task_run.expected_start_time, task_run.next_scheduled_start_time,
       task_run.start_time, task_run.end_time, task_run.total_run_time, task_run.empirical_policy,
       task_run.flow_run_run_count, owner.run_count as flow_run_attempt,
       owner.state_type as flow_run_state_type, coalesce(owner.epoch, task_run.epoch) as epoch
from task_run
left join owner on owner.id = task_run.flow_run_id
where task_run.id = :id
for update of task_run;

-- name: details_of_flow_run
-- What the state of its flow run says, which for_transition has locked. Index: primary keys.
select current.state_details
from task_run
join flow_run on flow_run.id = task_run.flow_run_id
join flow_run_state as current
    on current.flow_run_id = flow_run.id and current.timestamp = flow_run.state_timestamp
where task_run.id = :id;

-- name: update_state
-- Index: primary key.
update task_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, run_count = :run_count,
    expected_start_time = :expected_start_time,
    next_scheduled_start_time = :next_scheduled_start_time, start_time = :start_time,
    end_time = :end_time, total_run_time = :total_run_time,
    flow_run_run_count = :flow_run_run_count
where id = :id;

-- name: end
-- The end of a run, unless somebody has moved it from its last state. Index: primary key.
update task_run
set state_id = :state_id, state_type = :state_type, state_name = :state_name,
    state_timestamp = :state_timestamp, end_time = :end_time, total_run_time = :total_run_time
where id = :id and state_id = :last_state_id;

-- name: find_call
-- The record of one call, with what its last state holds. Index: task_run_by_call.
select task_run.id, task_run.state_type, current.data, current.data_format, task_run.source_hash
from task_run
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
where task_run.flow_run_id = :flow_run_id and task_run.task_key = :task_key
      and task_run.dynamic_key = :dynamic_key;

-- name: count_equal_calls
-- One more than the number that the last of them has behind its key; the first has none. "." is what
-- follows on "-". Index: task_run_by_call.
select coalesce(max(cast(
           coalesce(nullif(substr(dynamic_key, length(cast(:first as text)) + 2), ''), '0') as bigint
       )) + 1, 0)
from task_run
where flow_run_id = :flow_run_id and dynamic_key >= :first and dynamic_key < :first || '.';

-- name: recorded_calls
-- What a run has on record, in the order in which the calls were made. Index: task_run_by_flow_run.
select id, parent_task_run_id, task_key, dynamic_key, call_number, state_type, state_name,
       source_hash, name, run_count, owes_hooks
from task_run
where flow_run_id = :flow_run_id
order by id;

-- name: owe_hooks
-- With its completion: the hooks for that are to be called; or they were. Index: primary key.
update task_run set owes_hooks = :owes_hooks where id = :id;

-- name: recorded_values
-- What the completed calls of a run have returned, from one of them on in the order in which they
-- were made; of one that is too large to be read ahead only its size. Index: task_run_by_flow_run.
select task_run.id,
       case when task_run.id = :first_id or length(current.data) <= :largest then current.data end
           as data,
       current.data_format, coalesce(length(current.data), 0) as size
from task_run
join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
where task_run.flow_run_id = :flow_run_id and task_run.id >= :first_id
      and task_run.state_type = 'COMPLETED'
order by task_run.id
limit :limit;

-- name: completed_below [sqlite]
-- How many calls of a run, and of all that it called, have completed. Each joins the one before, or
-- SQLite would begin with the states. Index: task_run_by_flow_run, flow_run_by_parent.
with recursive run (id) as (
    select flow_run.id from flow_run where flow_run.id = :flow_run_id
    union all
    select child.id
    from run
    cross join task_run as tracker on tracker.flow_run_id = run.id
    cross join flow_run as child on child.parent_task_run_id = tracker.id
)
select count(*)
from run
cross join task_run on task_run.flow_run_id = run.id
where task_run.state_type = 'COMPLETED';

-- name: completed_below [postgres]
-- The same.
with recursive run (id) as (
    select flow_run.id from flow_run where flow_run.id = :flow_run_id
    union all
    select child.id
    from run
    join task_run as tracker on tracker.flow_run_id = run.id
    join flow_run as child on child.parent_task_run_id = tracker.id
)
select count(*)
from run
join task_run on task_run.flow_run_id = run.id
where task_run.state_type = 'COMPLETED';

-- name: running_below [sqlite]
-- The functions that were running for a run, or for what it called.
-- Index: task_run_by_flow_run, flow_run_by_parent.
with recursive run (id) as (
    select flow_run.id from flow_run where flow_run.id = :flow_run_id
    union all
    select child.id
    from run
    cross join task_run as tracker on tracker.flow_run_id = run.id
    cross join flow_run as child on child.parent_task_run_id = tracker.id
)
select task_run.name, task_run.task_key
from run
cross join task_run on task_run.flow_run_id = run.id
where task_run.state_type = 'RUNNING'
      and not exists (
          select 1 from flow_run as called where called.parent_task_run_id = task_run.id
      )
order by task_run.id
limit :limit;

-- name: running_below [postgres]
-- The same.
with recursive run (id) as (
    select flow_run.id from flow_run where flow_run.id = :flow_run_id
    union all
    select child.id
    from run
    join task_run as tracker on tracker.flow_run_id = run.id
    join flow_run as child on child.parent_task_run_id = tracker.id
)
select task_run.name, task_run.task_key
from run
join task_run on task_run.flow_run_id = run.id
where task_run.state_type = 'RUNNING'
      and not exists (
          select 1 from flow_run as called where called.parent_task_run_id = task_run.id
      )
order by task_run.id
limit :limit;

-- name: to_supersede
-- The completed calls of a run from one of them on. Index: task_run_by_flow_run.
select id
from task_run
where flow_run_id = :flow_run_id and id >= :first_id and state_type = 'COMPLETED'
order by id;

-- name: caller_of
-- The task run that made a call. Index: primary key.
select parent_task_run_id from task_run where id = :id;

-- name: unfinished_of_flow_run
-- What was running when its process died. Index: task_run_by_flow_run.
select id
from task_run
where flow_run_id = :flow_run_id
      and state_type in ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
order by id;

-- name: owner_of
-- The process that runs it: that of its flow run, or outside of flows its own. Index: primary keys.
select coalesce(flow_run.owner_id, task_run.owner_id) as owner_id
from task_run
left join flow_run on flow_run.id = task_run.flow_run_id
where task_run.id = :id;

-- name: to_crash
-- What a dead process was running outside of flows. Index: task_run_owned.
select id
from task_run
where owner_id = :owner_id and end_time is null and state_name <> 'NotReady'
order by id
limit :limit;

-- name: next_epoch
-- From here on, writes that name an earlier epoch change nothing. Index: primary key.
update task_run
set epoch = epoch + 1
where id = :id;

-- name: get_many [sqlite]
-- Runs by id, for people, in the order of the ids. Index: primary key.
select task_run.id, task_run.flow_run_id, task_run.parent_task_run_id, task_run.name,
       task_run.task_key, task_run.dynamic_key, task_run.state_id, task_run.state_type,
       task_run.state_name, task_run.state_timestamp, current.message, current.state_details,
       current.data, current.data_format, task_run.run_count, task_run.expected_start_time,
       task_run.next_scheduled_start_time, task_run.start_time, task_run.end_time,
       task_run.total_run_time, task_run.source_hash, task_run.task_version,
       task_run.flow_run_run_count, task_run.tags, task_run.labels, task_run.empirical_policy,
       task_run.task_inputs,
       coalesce(task_run.state_timestamp, task_run.created) as updated, task_run.created
from json_each(:ids) as wanted
join task_run on task_run.id = unhex(wanted.value, '-')
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
order by wanted.key;

-- name: get_many [postgres]
-- The same.
select task_run.id, task_run.flow_run_id, task_run.parent_task_run_id, task_run.name,
       task_run.task_key, task_run.dynamic_key, task_run.state_id, task_run.state_type,
       task_run.state_name, task_run.state_timestamp, current.message, current.state_details,
       current.data, current.data_format, task_run.run_count, task_run.expected_start_time,
       task_run.next_scheduled_start_time, task_run.start_time, task_run.end_time,
       task_run.total_run_time, task_run.source_hash, task_run.task_version,
       task_run.flow_run_run_count, task_run.tags, task_run.labels, task_run.empirical_policy,
       task_run.task_inputs,
       coalesce(task_run.state_timestamp, task_run.created) as updated, task_run.created
from jsonb_array_elements_text(:ids) with ordinality as wanted (value, key)
join task_run on task_run.id = wanted.value::uuid
left join task_run_state as current
    on current.task_run_id = task_run.id and current.timestamp = task_run.state_timestamp
order by wanted.key;

-- name: get_many_lock [postgres]
-- Before get_many, in a session that was opened for update: the runs stay as they are then read
-- until it ends. In the order of their ids, so that two sessions do not lock crosswise.
-- Index: primary key.
select task_run.id
from jsonb_array_elements_text(:ids) as wanted (value)
join task_run on task_run.id = wanted.value::uuid
order by task_run.id
for update of task_run;

-- name: graph
-- The task runs of a flow run in the order in which they began, each with the newest flow run that it
-- stands for, if any. Index: task_run_by_flow_run, flow_run_by_parent.
select task_run.id, task_run.name, task_run.state_type, task_run.start_time, task_run.end_time,
       task_run.parent_task_run_id, task_run.task_inputs,
       child.id as child_flow_run_id, child.name as child_name
from task_run
left join flow_run as child
    on child.parent_task_run_id = task_run.id
       and child.id = (
           select max_child.id from flow_run as max_child
           where max_child.parent_task_run_id = task_run.id
           order by max_child.id desc
           limit 1
       )
where task_run.flow_run_id = :flow_run_id
order by task_run.id;

-- Finding. The filters that are given besides the one that leads, each off when its value is NULL.
-- Lists are JSON arrays. Included below, word for word, where a statement says so.

-- fragment: conditions [sqlite]
      and (:ids is null or task_run.id in (select unhex(value, '-') from json_each(:ids)))
      and (:names is null or task_run.name in (select value from json_each(:names)))
      and (:name_like is null or instr(lower(task_run.name), lower(:name_like)) > 0)
      and (:flow_run_ids is null
          or flow_run_id in (select unhex(value, '-') from json_each(:flow_run_ids)))
      and (:has_flow_run is null or (flow_run_id is not null) = :has_flow_run)
      and (:parent_task_run_ids is null
          or parent_task_run_id in (select unhex(value, '-') from json_each(:parent_task_run_ids)))
      and (:task_keys is null or task_key in (select value from json_each(:task_keys)))
      -- has_all is a function of ours, and not called where the first tag is nowhere in the text;
      -- what has a backslash may be another way to write it.
      and (:tags is null
          or (instr(coalesce(tags, '[]'), coalesce(:tags ->> 0, '')) > 0 or instr(tags, '\') > 0)
          and has_all(coalesce(tags, '[]'), :tags))
      and (:any_tags is null
          or exists (
              select value from json_each(:any_tags)
              intersect
              select value from json_each(tags)
          ))
      and (:has_tags is null or (tags is not null) = :has_tags)
      and (:state_types is null or state_type in (select value from json_each(:state_types)))
      and (:state_names is null or state_name in (select value from json_each(:state_names)))
      and (:start_time_after is null or start_time >= :start_time_after)
      and (:start_time_before is null or start_time <= :start_time_before)
      and (:has_start_time is null or (start_time is not null) = :has_start_time)
      and (:end_time_after is null or end_time >= :end_time_after)
      and (:end_time_before is null or end_time <= :end_time_before)
      and (:has_end_time is null or (end_time is not null) = :has_end_time)
      and (:expected_start_time_after is null or expected_start_time >= :expected_start_time_after)
      and (:expected_start_time_before is null
          or expected_start_time <= :expected_start_time_before)
      and (:has_subflow is null
          or exists (select 1 from flow_run where parent_task_run_id = task_run.id) = :has_subflow)

-- fragment: conditions [postgres]
-- Without its value a parameter has no type, so each is cast where it is compared with NULL.
      and (cast(:ids as jsonb) is null
          or task_run.id in (select value::uuid from jsonb_array_elements_text(:ids) as given (value)))
      and (cast(:names as jsonb) is null
          or task_run.name in (select value from jsonb_array_elements_text(:names) as given (value)))
      and (cast(:name_like as text) is null
          or strpos(lower(task_run.name collate "C"), lower(cast(:name_like as text) collate "C")) > 0)
      and (cast(:flow_run_ids as jsonb) is null
          or flow_run_id in (select value::uuid from jsonb_array_elements_text(:flow_run_ids) as given (value)))
      and (cast(:has_flow_run as boolean) is null or (flow_run_id is not null) = :has_flow_run)
      and (cast(:parent_task_run_ids as jsonb) is null
          or parent_task_run_id in (select value::uuid from jsonb_array_elements_text(:parent_task_run_ids) as given (value)))
      and (cast(:task_keys as jsonb) is null
          or task_key in (select value from jsonb_array_elements_text(:task_keys) as given (value)))
      and (cast(:tags as jsonb) is null or has_all(coalesce(tags, '[]'), :tags))
      and (cast(:any_tags as jsonb) is null
          or tags ?| array(select jsonb_array_elements_text(:any_tags)))
      and (cast(:has_tags as boolean) is null or (tags is not null) = :has_tags)
      and (cast(:state_types as jsonb) is null
          or state_type in (select value from jsonb_array_elements_text(:state_types) as given (value)))
      and (cast(:state_names as jsonb) is null
          or state_name in (select value from jsonb_array_elements_text(:state_names) as given (value)))
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
      and (cast(:has_subflow as boolean) is null
          or exists (select 1 from flow_run where parent_task_run_id = task_run.id) = :has_subflow)

-- One statement for each filter that can lead, and for each order. Newest first, unless the name
-- says otherwise; a page at a time: "before" is the last id of the page before. Where a column
-- leads the order, "after_key" is its last value as well.

-- name: find_by_id
-- Index: primary key.
select id
from task_run
where task_run.id = :lead_id and task_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_flow_run
-- Index: task_run_by_flow_run.
select id
from task_run
where flow_run_id = :lead_id and task_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_by_state
-- Index: task_run_not_completed.
select id
from task_run
where state_type = :lead and state_type is distinct from 'COMPLETED' and task_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_newest
-- Index: primary key.
select id
from task_run
where task_run.id < :before
-- include: conditions
order by id desc
limit :limit;

-- name: find_expected_asc
-- 
-- scan: looked at by people, and no task pays for an index
select id, expected_start_time as after_key
from task_run
where expected_start_time >= :after_key and (expected_start_time, id) > (:after_key, :after_id)
-- include: conditions
order by expected_start_time asc, id asc
limit :limit;

-- name: find_expected_desc
-- 
-- scan: looked at by people, and no task pays for an index
select id, expected_start_time as after_key
from task_run
where expected_start_time <= :after_key and (expected_start_time, id) < (:after_key, :after_id)
-- include: conditions
order by expected_start_time desc, id desc
limit :limit;

-- name: find_name_asc
-- 
-- scan: looked at by people, and no task pays for an index
select id, name as after_key
from task_run
where name >= :after_name and (name, id) > (:after_name, :after_id)
-- include: conditions
order by name asc, id asc
limit :limit;

-- name: find_name_desc
-- 
-- scan: looked at by people, and no task pays for an index
select id, name as after_key
from task_run
where name <= :after_name and (name, id) < (:after_name, :after_id)
-- include: conditions
order by name desc, id desc
limit :limit;

-- name: find_next_asc
-- Those that are not scheduled come last.
-- scan: looked at by people, and no task pays for an index
select id, coalesce(next_scheduled_start_time, 9223372036854775807) as after_key
from task_run
where coalesce(next_scheduled_start_time, 9223372036854775807) >= :after_key
      and (coalesce(next_scheduled_start_time, 9223372036854775807), id) > (:after_key, :after_id)
-- include: conditions
order by coalesce(next_scheduled_start_time, 9223372036854775807) asc, id asc
limit :limit;

-- name: find_end_desc
-- Those that have not ended come last.
-- scan: looked at by people, and no task pays for an index
select id, coalesce(end_time, -9223372036854775807) as after_key
from task_run
where coalesce(end_time, -9223372036854775807) <= :after_key and (coalesce(end_time, -9223372036854775807), id) < (:after_key, :after_id)
-- include: conditions
order by coalesce(end_time, -9223372036854775807) desc, id desc
limit :limit;

-- name: count_by_id
-- How many. Index: primary key.
select count(*)
from task_run
where task_run.id = :lead_id
-- include: conditions
;

-- name: count_by_flow_run
-- How many. Index: task_run_by_flow_run.
select count(*)
from task_run
where flow_run_id = :lead_id
-- include: conditions
;

-- name: count_by_state
-- How many. Index: task_run_not_completed.
select count(*)
from task_run
where state_type = :lead and state_type is distinct from 'COMPLETED'
-- include: conditions
;

-- name: count_newest
-- How many. Index: primary key.
-- scan: every run counts
select count(*)
from task_run
where true
-- include: conditions
;

-- The same where nothing else is asked: answered by the index alone, without a look at any run.

-- name: count_all_by_flow_run
-- How many. Index: task_run_by_flow_run.
select count(*)
from task_run
where flow_run_id = :lead_id;

-- name: count_all_by_state
-- How many. Index: task_run_not_completed.
select count(*)
from task_run
where state_type = :lead and state_type is distinct from 'COMPLETED';

-- name: count_all_completed
-- How many: no index holds them by their state, since nearly all are, and each would pay for it. All
-- of them, which any index counts, without those that are not. Index: task_run_not_completed.
-- scan: every run counts
select (select count(*) from task_run)
       - (select count(*) from task_run where state_type is distinct from 'COMPLETED');

-- name: count_all_newest
-- How many; any index will do.
-- scan: every run counts
select count(*)
from task_run;

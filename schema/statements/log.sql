-- What runs have logged. Appended in batches, read by run or by time.

-- name: append [sqlite]
-- A batch of lines of one flow run, or of none. Those that are there already stay: a repeat of the same
-- write. A flow run may have been removed meanwhile, which takes its lines along: so it is asked, once
-- for all of them. Index: primary key.
insert into log (timestamp, id, level, name, message, flow_run_id, task_run_id)
select line.value ->> 'timestamp', unhex(line.value ->> 'id', '-'), line.value ->> 'level',
       line.value ->> 'name', line.value ->> 'message', :flow_run_id,
       unhex(line.value ->> 'task_run_id', '-')
from json_each(:lines) as line
where not :is_asked or :flow_run_id is null
      or exists (select 1 from flow_run where id = :flow_run_id)
on conflict (timestamp, id) do nothing;

-- name: append [postgres]
-- The same. It is asked of late lines only: the flow run may be made in a transaction that is still open.
insert into log (timestamp, id, level, name, message, flow_run_id, task_run_id)
select line.timestamp, line.id, line.level, line.name, line.message, cast(:flow_run_id as uuid),
       line.task_run_id
from jsonb_to_recordset(:lines) as line (
    timestamp bigint, id uuid, level integer, name text, message text, task_run_id uuid
)
where not :is_asked or cast(:flow_run_id as uuid) is null
      or exists (select 1 from flow_run where id = :flow_run_id)
on conflict (timestamp, id) do nothing;

-- name: append_one [sqlite]
-- The same for one line: most batches of a short run have no more. Index: primary key.
insert into log (timestamp, id, level, name, message, flow_run_id, task_run_id)
select :timestamp, :id, :level, :name, :message, :flow_run_id, :task_run_id
where not :is_asked or :flow_run_id is null
      or exists (select 1 from flow_run where id = :flow_run_id)
on conflict (timestamp, id) do nothing;

-- name: append_one [postgres]
-- The same.
insert into log (timestamp, id, level, name, message, flow_run_id, task_run_id)
select :timestamp, :id, cast(:level as integer), :name, :message, cast(:flow_run_id as uuid),
       cast(:task_run_id as uuid)
where not :is_asked or cast(:flow_run_id as uuid) is null
      or exists (select 1 from flow_run where id = :flow_run_id)
on conflict (timestamp, id) do nothing;

-- Finding. A statement for each filter that leads by its index, and for both orders; the span of time
-- is a part of the index. Every other filter is a condition that a NULL turns off. Terms are looked for
-- in the message and in the name of the logger, whatever the case of their ASCII letters.

-- fragment: conditions [sqlite]
      and (:min_level is null or level >= :min_level)
      and (:max_level is null or level <= :max_level)
      and (:flow_run_ids is null
          or flow_run_id in (select unhex(value, '-') from json_each(:flow_run_ids)))
      and (:has_task_run is null or (task_run_id is not null) = :has_task_run)
      and (:any_terms is null
          or exists (
              select 1 from json_each(:any_terms) as term
              where instr(lower(message || ' ' || name), lower(term.value)) > 0
          ))
      and (:all_terms is null
          or not exists (
              select 1 from json_each(:all_terms) as term
              where instr(lower(message || ' ' || name), lower(term.value)) = 0
          ))
      and (:no_terms is null
          or not exists (
              select 1 from json_each(:no_terms) as term
              where instr(lower(message || ' ' || name), lower(term.value)) > 0
          ))

-- fragment: conditions [postgres]
      and (cast(:min_level as integer) is null or level >= :min_level)
      and (cast(:max_level as integer) is null or level <= :max_level)
      and (cast(:flow_run_ids as jsonb) is null
          or flow_run_id in (
              select value::uuid from jsonb_array_elements_text(:flow_run_ids) as given (value)
          ))
      and (cast(:has_task_run as boolean) is null or (task_run_id is not null) = :has_task_run)
      and (cast(:any_terms as jsonb) is null
          or exists (
              select 1 from jsonb_array_elements_text(:any_terms) as term (value)
              where strpos(
                  lower((message || ' ' || name) collate "C"), lower(term.value collate "C")
              ) > 0
          ))
      and (cast(:all_terms as jsonb) is null
          or not exists (
              select 1 from jsonb_array_elements_text(:all_terms) as term (value)
              where strpos(
                  lower((message || ' ' || name) collate "C"), lower(term.value collate "C")
              ) = 0
          ))
      and (cast(:no_terms as jsonb) is null
          or not exists (
              select 1 from jsonb_array_elements_text(:no_terms) as term (value)
              where strpos(
                  lower((message || ' ' || name) collate "C"), lower(term.value collate "C")
              ) > 0
          ))

-- name: find_by_flow_run_asc
-- Index: log_by_flow_run.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where flow_run_id = :flow_run_id and (timestamp, id) > (:after_timestamp, :after_id)
      and timestamp <= :until
-- include: conditions
order by timestamp asc, id asc
limit :limit;

-- name: find_by_flow_run_desc
-- Index: log_by_flow_run.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where flow_run_id = :flow_run_id and (timestamp, id) < (:after_timestamp, :after_id)
      and timestamp >= :since
-- include: conditions
order by timestamp desc, id desc
limit :limit;

-- name: find_by_task_run_asc
-- Index: log_by_task_run.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where task_run_id = :task_run_id and (timestamp, id) > (:after_timestamp, :after_id)
      and timestamp <= :until
-- include: conditions
order by timestamp asc, id asc
limit :limit;

-- name: find_by_task_run_desc
-- Index: log_by_task_run.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where task_run_id = :task_run_id and (timestamp, id) < (:after_timestamp, :after_id)
      and timestamp >= :since
-- include: conditions
order by timestamp desc, id desc
limit :limit;

-- name: find_all_asc
-- Index: primary key.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where (timestamp, id) > (:after_timestamp, :after_id)
      and timestamp <= :until
-- include: conditions
order by timestamp asc, id asc
limit :limit;

-- name: find_all_desc
-- Index: primary key.
select timestamp, id, level, name, message, flow_run_id, task_run_id
from log
where (timestamp, id) < (:after_timestamp, :after_id)
      and timestamp >= :since
-- include: conditions
order by timestamp desc, id desc
limit :limit;

-- name: count_by_flow_run
-- How many. Index: log_by_flow_run.
select count(*)
from log
where flow_run_id = :flow_run_id and timestamp between :since and :until
-- include: conditions
;

-- name: count_by_task_run
-- How many. Index: log_by_task_run.
select count(*)
from log
where task_run_id = :task_run_id and timestamp between :since and :until
-- include: conditions
;

-- name: count_all
-- How many. Index: primary key.
select count(*)
from log
where timestamp between :since and :until
-- include: conditions
;

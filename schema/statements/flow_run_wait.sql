-- What flow runs wait for by themselves: a time, or a signal until a time.

-- name: insert
-- Nothing when the run has come here before. Key: flow_run_id, key.
insert into flow_run_wait (flow_run_id, key, signal, wanted, deadline, created)
values (:flow_run_id, :key, :signal, :wanted, :deadline, :now)
on conflict (flow_run_id, key) do nothing;

-- name: get [sqlite]
-- One wait, to be judged. Index: primary key.
select key, signal, wanted, deadline, is_over
from flow_run_wait
where flow_run_id = :flow_run_id and key = :key;

-- name: get [postgres]
-- The same; a signal that is being sent, and looks at it, is waited for.
select key, signal, wanted, deadline, is_over
from flow_run_wait
where flow_run_id = :flow_run_id and key = :key
for update;

-- name: for_signal [sqlite]
-- The waits of a run for a signal that nothing has ended yet. Index: primary key.
select key, signal, wanted, deadline, is_over
from flow_run_wait
where flow_run_id = :flow_run_id and signal = :signal and not is_over
order by key;

-- name: for_signal [postgres]
-- The same; a judgement that is under way is waited for.
select key, signal, wanted, deadline, is_over
from flow_run_wait
where flow_run_id = :flow_run_id and signal = :signal and not is_over
order by key
for update;

-- name: open
-- What a run waits for now: signals that have not come, and times to come. Index: primary key.
select signal, deadline
from flow_run_wait
where flow_run_id = :flow_run_id and not is_over
      and (deadline is null or deadline > :now)
      and (signal is null or not exists (
          select 1 from flow_run_input
          where flow_run_input.flow_run_id = flow_run_wait.flow_run_id
                and flow_run_input.key = 'signal-' || flow_run_wait.signal
      ))
order by created, key;

-- name: end [sqlite]
-- Its deadline has come, and no signal before it. Index: primary key.
update flow_run_wait set is_over = 1 where flow_run_id = :flow_run_id and key = :key;

-- name: end [postgres]
-- The same.
update flow_run_wait set is_over = true where flow_run_id = :flow_run_id and key = :key;

-- name: suspend
-- The run is suspended for it, by a state. Index: primary key.
update flow_run_wait set state_id = :state_id where flow_run_id = :flow_run_id and key = :key;

-- name: open_below [sqlite]
-- How many waits of a run, and of all that it called, nothing has ended yet.
-- Index: task_run_by_flow_run, flow_run_by_parent.
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
cross join flow_run_wait on flow_run_wait.flow_run_id = run.id
where not flow_run_wait.is_over
      and (flow_run_wait.deadline is null or flow_run_wait.deadline > :now)
      and not exists (
          select 1 from flow_run_input
          where flow_run_input.flow_run_id = run.id
                and flow_run_input.key = 'signal-' || flow_run_wait.signal
      );

-- name: open_below [postgres]
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
join flow_run_wait on flow_run_wait.flow_run_id = run.id
where not flow_run_wait.is_over
      and (flow_run_wait.deadline is null or flow_run_wait.deadline > :now)
      and not exists (
          select 1 from flow_run_input
          where flow_run_input.flow_run_id = run.id
                and flow_run_input.key = 'signal-' || flow_run_wait.signal
      );

-- name: due
-- The runs that are suspended for something that has come, oldest first. Index: flow_run_by_state.
select flow_run.id, flow.name as flow_name, flow_run.entrypoint
from flow_run
join flow on flow.id = flow_run.flow_id
join flow_run_wait
    on flow_run_wait.flow_run_id = flow_run.id and flow_run_wait.state_id = flow_run.state_id
where flow_run.state_type = 'PAUSED'
      and (flow_run_wait.deadline <= :now
          or exists (
              select 1 from flow_run_input
              where flow_run_input.flow_run_id = flow_run.id
                    and flow_run_input.key = 'signal-' || flow_run_wait.signal
          ))
order by flow_run.id;

-- Files that results are in, as far as rows name them. They have no table of their own.

-- name: unused [sqlite]
-- Those of some files that no run and no cached result names.
-- Index: flow_run_state_with_file, task_run_state_with_file, cached_result_with_file.
select wanted.value as name
from json_each(:names) as wanted
where not exists (
          select 1 from task_run_state as state
          where state.data = cast(wanted.value as blob) and substr(state.data_format, 1, 5) = 'file '
      )
      and not exists (
          select 1 from flow_run_state as state
          where state.data = cast(wanted.value as blob) and substr(state.data_format, 1, 5) = 'file '
      )
      and not exists (
          select 1 from cached_result as cached
          where cached.data = cast(wanted.value as blob)
                and substr(cached.data_format, 1, 5) = 'file '
      );

-- name: unused [postgres]
select wanted.value as name
from jsonb_array_elements_text(:names) as wanted (value)
where not exists (
          select 1 from task_run_state as state
          where state.data = convert_to(wanted.value, 'UTF8')
                and substr(state.data_format, 1, 5) = 'file '
      )
      and not exists (
          select 1 from flow_run_state as state
          where state.data = convert_to(wanted.value, 'UTF8')
                and substr(state.data_format, 1, 5) = 'file '
      )
      and not exists (
          select 1 from cached_result as cached
          where cached.data = convert_to(wanted.value, 'UTF8')
                and substr(cached.data_format, 1, 5) = 'file '
      );

-- name: named [sqlite]
-- Every file that a row names.
-- scan: they are copied, or looked at, all of them
select cast(data as text) as name from task_run_state where substr(data_format, 1, 5) = 'file '
union
select cast(data as text) from flow_run_state where substr(data_format, 1, 5) = 'file '
union
select cast(data as text) from cached_result where substr(data_format, 1, 5) = 'file '
order by name;

-- name: named [postgres]
-- scan: they are copied, or looked at, all of them
select convert_from(data, 'UTF8') as name
from task_run_state where substr(data_format, 1, 5) = 'file '
union
select convert_from(data, 'UTF8') from flow_run_state where substr(data_format, 1, 5) = 'file '
union
select convert_from(data, 'UTF8') from cached_result where substr(data_format, 1, 5) = 'file '
order by name;

-- name: shared_lock [postgres]
-- While this transaction is open, no file is removed. On SQLite a transaction that writes has
-- locked everything already.
select pg_advisory_xact_lock_shared(hashtextextended(current_schema() || ' result files', 0));

-- name: exclusive_lock [postgres]
-- Whether nobody is about to name a file; while this transaction is open, nobody can.
select pg_try_advisory_xact_lock(hashtextextended(current_schema() || ' result files', 0))
       as is_alone;

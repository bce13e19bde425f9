-- Flow runs over time: by the bucket in which they were expected to start, and by state. Times and
-- durations are microseconds.

-- name: by_bucket [sqlite]
-- The buckets begin at "start" and every "step" after it, or, when there is no step, lie between the
-- given edges; those without a run are there too. A run is late by its start after the expected one,
-- or, while it has neither started nor ended, by the time that has passed since. max() is NULL as
-- soon as one of its arguments is. Index: flow_run_by_expected_start.
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
                     and (flow_id = :flow_id or :flow_id is null)
                     and (deployment_id = :deployment_id or :deployment_id is null)
                     and (work_queue_id = :work_queue_id or :work_queue_id is null)
               group by state_type, state_name
           ) as state
       ) as states
from bucket
order by bucket.starts;

-- name: by_bucket [postgres]
-- The same. greatest() passes over NULL.
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
                     and (flow_id = :flow_id or :flow_id is null)
                     and (deployment_id = :deployment_id or :deployment_id is null)
                     and (work_queue_id = :work_queue_id or :work_queue_id is null)
               group by state_type, state_name
           ) as state
       ) as states
from bucket
order by bucket.starts;

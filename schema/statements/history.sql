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
),
counted as (
    select bucket.starts, run.state_type, run.state_name, count(*) as runs,
           sum(run.total_run_time + case
               when run.state_type = 'RUNNING' then max(:now - run.state_timestamp, 0)
               else 0
           end) as run_time,
           sum(max(coalesce(case
               when run.start_time is not null then run.start_time
               when run.state_type not in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') then :now
           end - run.expected_start_time, 0), 0)) as lateness
    from bucket
    join flow_run as run on run.expected_start_time >= bucket.starts
                         and run.expected_start_time < bucket.ends
    where run.state_type is not null
          and (run.flow_id = :flow_id or :flow_id is null)
          and (run.deployment_id = :deployment_id or :deployment_id is null)
          and (run.work_queue_id = :work_queue_id or :work_queue_id is null)
    group by bucket.starts, run.state_type, run.state_name
)
select bucket.starts, bucket.ends,
       json_group_array(
           json_object(
               'state_type', counted.state_type, 'state_name', counted.state_name,
               'count_runs', counted.runs, 'estimated_run_time', counted.run_time,
               'estimated_lateness', counted.lateness
           ) order by counted.state_type, counted.state_name
       ) filter (where counted.runs is not null) as states
from bucket
left join counted on counted.starts = bucket.starts
group by bucket.starts, bucket.ends
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
),
counted as (
    select bucket.starts, run.state_type, run.state_name, count(*) as runs,
           sum(run.total_run_time + case
               when run.state_type = 'RUNNING' then greatest(:now - run.state_timestamp, 0)
               else 0
           end) as run_time,
           sum(greatest(case
               when run.start_time is not null then run.start_time
               when run.state_type not in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED') then :now
           end - run.expected_start_time, 0)) as lateness
    from bucket
    join flow_run as run on run.expected_start_time >= bucket.starts
                         and run.expected_start_time < bucket.ends
    where run.state_type is not null
          and (run.flow_id = :flow_id or :flow_id is null)
          and (run.deployment_id = :deployment_id or :deployment_id is null)
          and (run.work_queue_id = :work_queue_id or :work_queue_id is null)
    group by bucket.starts, run.state_type, run.state_name
)
select bucket.starts, bucket.ends,
       coalesce(jsonb_agg(
           jsonb_build_object(
               'state_type', counted.state_type, 'state_name', counted.state_name,
               'count_runs', counted.runs, 'estimated_run_time', counted.run_time,
               'estimated_lateness', counted.lateness
           ) order by counted.state_type collate "C", counted.state_name collate "C"
       ) filter (where counted.runs is not null), '[]') as states
from bucket
left join counted on counted.starts = bucket.starts
group by bucket.starts, bucket.ends
order by bucket.starts;

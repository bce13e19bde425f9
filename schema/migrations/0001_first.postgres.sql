-- The first schema: flows, their runs and states, processes, and the work queue.
-- Postgres variant; its twin is 0001_first.sqlite.sql. Same tables, columns and keys.
-- It runs with search_path set to the schema that the orchestrator was given.
--
-- Conventions
--   ids         UUIDv7, made by the caller; in order of time, so that keys append
--   times       microseconds since 1970-01-01 UTC, never read from the database's clock
--   durations   microseconds
--   JSON        jsonb; json where the text has to come back as it was written

-- Whether a JSON array holds all elements of another. On SQLite the program brings it.
create function has_all(held jsonb, wanted jsonb) returns boolean
language sql immutable
return held @> wanted;

create table flow (
    id       uuid    not null primary key,
    name     text    not null unique,
    tags     jsonb   not null default '[]' check (jsonb_typeof(tags) = 'array'),
    labels   jsonb   not null default '{}' check (jsonb_typeof(labels) = 'object'),
    created  bigint  not null,
    updated  bigint  not null
);

-- One row for each process that has run something here. Whether it still lives is not written
-- down for its own host: it holds byte life_slot of the life file locked for as long as it does.
-- Other hosts, on a server, go by its lease.
create table process (
    id            uuid    not null primary key,
    host          text    not null,
    boot_id       text,                  -- changes when the host restarts; null where unknown
    pid           bigint  not null,
    pid_started   bigint,               -- clock ticks since boot; tells a reused pid
    life_file     text,                  -- device:inode of the file whose lock tells that it lives
    life_slot     bigint,
    started       bigint  not null,
    ended         bigint,                -- null until it closed, or was found dead
    epoch         bigint  not null default 0,   -- how often it was found dead, and was not
    lease         bigint,                -- how long other hosts believe in it unheard; null: no lease
    expires       bigint,                -- until when, by the database's clock
    check ((lease is null) = (expires is null))
);

create index process_living on process (host) where ended is null;

create table work_pool (
    id                 uuid    not null primary key,
    name               text    not null unique,
    description        text,
    type               text    not null default 'process',
    base_job_template  jsonb   not null default '{}' check (jsonb_typeof(base_job_template) = 'object'),
    is_paused          boolean not null default false,
    concurrency_limit  integer check (concurrency_limit >= 0),
    default_queue_id   uuid,
    status             text    not null default 'NOT_READY'
                               check (status in ('READY', 'NOT_READY', 'PAUSED')),
    created            bigint  not null,
    updated            bigint  not null
);

create table work_queue (
    id                 uuid    not null primary key,
    work_pool_id       uuid    not null references work_pool (id) on delete cascade,
    name               text    not null,
    description        text    not null default '',
    is_paused          boolean not null default false,
    concurrency_limit  integer check (concurrency_limit >= 0),
    priority           integer not null check (priority >= 1),   -- 1 is served first
    status             text    not null default 'NOT_READY'
                               check (status in ('READY', 'NOT_READY', 'PAUSED')),
    last_polled        bigint,
    created            bigint  not null,
    updated            bigint  not null,
    unique (work_pool_id, name)
);

create index work_queue_by_priority on work_queue (work_pool_id, priority, id);

alter table work_pool add constraint work_pool_default_queue
    foreign key (default_queue_id) references work_queue (id) deferrable initially deferred;

create table deployment (
    id                        uuid    not null primary key,
    flow_id                   uuid    not null references flow (id) on delete cascade,
    name                      text    not null,
    version                   text,
    description               text,
    tags                      jsonb   not null default '[]' check (jsonb_typeof(tags) = 'array'),
    labels                    jsonb   not null default '{}' check (jsonb_typeof(labels) = 'object'),
    parameters                json    not null default '{}' check (json_typeof(parameters) = 'object'),
    parameter_openapi_schema  jsonb,
    enforce_parameter_schema  boolean not null default true,
    paused                    boolean not null default false,
    path                      text,
    entrypoint                text,
    job_variables             jsonb   not null default '{}' check (jsonb_typeof(job_variables) = 'object'),
    work_queue_id             uuid    references work_queue (id) on delete set null,
    concurrency_limit         integer check (concurrency_limit > 0),
    concurrency_options       jsonb,
    status                    text    not null default 'NOT_READY'
                                      check (status in ('READY', 'NOT_READY')),
    last_polled               bigint,
    created                   bigint  not null,
    updated                   bigint  not null,
    unique (flow_id, name)
);

create index deployment_by_work_queue on deployment (work_queue_id) where work_queue_id is not null;

create table flow_run (
    id                         uuid    not null primary key,
    flow_id                    uuid    not null references flow (id) on delete cascade,
    name                       text    collate "C" not null,    -- sorted as on SQLite
    -- the current state, copied from its row in flow_run_state
    state_id                   uuid,
    state_type                 text    check (state_type in ('SCHEDULED', 'PENDING', 'RUNNING',
                                       'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED',
                                       'CANCELLING')),
    state_name                 text,
    state_timestamp            bigint,
    run_count                  integer not null default 0 check (run_count >= 0),
    expected_start_time        bigint,
    next_scheduled_start_time  bigint,
    start_time                 bigint,
    end_time                   bigint,
    total_run_time             bigint  not null default 0 check (total_run_time >= 0),
    -- who runs it: a write that names another epoch than this one changes nothing
    owner_id                   uuid    references process (id) on delete set null,
    epoch                      bigint  not null default 0,
    on_crash                   text    not null default 'fail' check (on_crash in ('fail', 'resume')),
    -- resumes in a row that nobody asked for by hand, without one more completed task
    auto_resumes               integer not null default 0 check (auto_resumes >= 0),
    completed_at_resume        integer not null default 0,   -- its completed tasks at the last of them
    -- what it was called with
    parameters                 json    not null default '{}' check (json_typeof(parameters) = 'object'),
    unstored_parameters        json    not null default '{}'    -- name: type, of those not storable
                                       check (json_typeof(unstored_parameters) = 'object'),
    parameters_hash            bytea,
    entrypoint                 text,                            -- module:qualified name of the function
    flow_version               text,
    idempotency_key            text,
    tags                       jsonb   not null default '[]' check (jsonb_typeof(tags) = 'array'),
    labels                     jsonb   not null default '{}' check (jsonb_typeof(labels) = 'object'),
    empirical_policy           jsonb   not null default '{}' check (jsonb_typeof(empirical_policy) = 'object'),
    created_by                 jsonb,
    infrastructure_pid         text,
    job_variables              jsonb   not null default '{}' check (jsonb_typeof(job_variables) = 'object'),
    -- where it came from and where it waits
    parent_task_run_id         uuid,
    deployment_id              uuid,                            -- no key: the runs outlive their deployment
    deployment_version         text,
    auto_scheduled             boolean not null default false,
    work_queue_id              uuid    references work_queue (id) on delete set null,
    claim_id                   uuid,                            -- the claim that took it last
    created                    bigint  not null,
    updated                    bigint  not null,
    check ((state_type is null) = (state_timestamp is null)),
    check ((state_type is null) = (state_id is null))
);

create unique index flow_run_by_idempotency_key
    on flow_run (flow_id, idempotency_key) where idempotency_key is not null;
create index flow_run_by_flow on flow_run (flow_id, id);
create index flow_run_by_name on flow_run (name, id);
create index flow_run_by_state on flow_run (state_type, id);
create index flow_run_by_expected_start on flow_run (expected_start_time, id);
-- what people list runs by
create index flow_run_by_start on flow_run (coalesce(start_time, expected_start_time), id);
-- what may be resumed by the parameters it was called with; not what is put into queues, and not what
-- runs: of that there is little at a time, and each run would be put in and taken out again
create index flow_run_unfinished on flow_run (flow_id, parameters_hash, id)
    where state_type <> 'COMPLETED' and state_type <> 'RUNNING' and parameters_hash is not null;
-- what a claim reads, in the order in which it takes
create index flow_run_claimable on flow_run (work_queue_id, next_scheduled_start_time, id)
    where state_type = 'SCHEDULED' and work_queue_id is not null;
-- what holds a slot of its queue and pool
create index flow_run_holding_slot on flow_run (work_queue_id, state_type)
    where state_type in ('PENDING', 'RUNNING') and work_queue_id is not null;
create index flow_run_by_claim on flow_run (claim_id) where claim_id is not null;
-- whether any run names a process
create index flow_run_by_owner on flow_run (owner_id) where owner_id is not null;
-- what a process has left unfinished; not what runs, for the reason given above
create index flow_run_owned on flow_run (owner_id)
    where owner_id is not null and end_time is null and state_type <> 'RUNNING';
-- what nobody called and has ended: what retention removes, those first that ended first
create index flow_run_ended on flow_run (state_type, end_time, id)
    where parent_task_run_id is null and end_time is not null;
create index flow_run_by_parent on flow_run (parent_task_run_id, id) where parent_task_run_id is not null;
create index flow_run_by_deployment on flow_run (deployment_id, id) where deployment_id is not null;

-- Append-only. Clustered by run, so that a history is one range.
create table flow_run_state (
    flow_run_id    uuid    not null references flow_run (id) on delete cascade,
    timestamp      bigint  not null,
    id             uuid    not null,     -- also the id of its event
    type           text    not null check (type in ('SCHEDULED', 'PENDING', 'RUNNING', 'COMPLETED',
                           'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED', 'CANCELLING')),
    name           text    not null,
    message        text,
    state_details  jsonb   check (jsonb_typeof(state_details) = 'object'),   -- null: all defaults
    data           bytea,                                          -- an encoded value or error
    data_format    text,                                          -- how data is encoded
    primary key (flow_run_id, timestamp),
    check ((data is null) = (data_format is null))
);

-- which files results are in: they are kept as long as a row is found here
create index flow_run_state_with_file on flow_run_state (data)
    where substr(data_format, 1, 5) = 'file ';

-- Inputs of flow runs: what a pause asks for, how it is answered, and what runs are sent.
create table flow_run_input (
    flow_run_id  uuid    not null references flow_run (id) on delete cascade,
    key          text    collate "C" not null check (key ~ '^[a-z0-9-]+$'),
    id           uuid    not null,
    value        text    not null check (value::jsonb is not null),
    sender       text,
    created      bigint  not null,
    primary key (flow_run_id, key)
);

-- What flow runs wait for by themselves, and have waited for: a time, or a signal until a time.
create table flow_run_wait (
    flow_run_id  uuid    not null references flow_run (id) on delete cascade,
    key          text    collate "C" not null check (key ~ '^[a-z0-9-]+$'),
    signal       text    collate "C",    -- the name of the signal; null: a sleep
    wanted       text    check (wanted is null or wanted::jsonb is not null),  -- its JSON Schema
    deadline     bigint,                 -- null: for as long as it takes
    is_over      boolean not null default false,  -- the deadline came first
    state_id     uuid,                   -- of the state by which the run is suspended for it
    created      bigint  not null,
    primary key (flow_run_id, key),
    check (signal is not null or deadline is not null)
);

create table task_run (
    id                         uuid    not null primary key,
    flow_run_id                uuid    references flow_run (id) on delete cascade,
    parent_task_run_id         uuid,
    name                       text    collate "C" not null,
    task_key                   text    not null,     -- the function's qualified name
    dynamic_key                text    collate "C" not null,     -- which call of it: parent, inputs, occurrence
    call_number                integer not null default 0 check (call_number >= 0),  -- the how-manieth of its task by its parent
    state_id                   uuid,
    state_type                 text    check (state_type in ('SCHEDULED', 'PENDING', 'RUNNING',
                                       'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED',
                                       'CANCELLING')),
    state_name                 text,
    state_timestamp            bigint,
    run_count                  integer not null default 0 check (run_count >= 0),
    flow_run_run_count         integer not null default 0,
    -- of one outside of flows: who runs it, and as flow_run.epoch; else its flow run says so
    owner_id                   uuid,
    epoch                      bigint  not null default 0,
    expected_start_time        bigint,
    next_scheduled_start_time  bigint,
    start_time                 bigint,
    end_time                   bigint,
    total_run_time             bigint  not null default 0 check (total_run_time >= 0),
    source_hash                text,                 -- of the function's source, beside the identity
    task_version               text,
    tags                       jsonb   check (jsonb_typeof(tags) = 'array'),            -- null: none
    labels                     jsonb   check (jsonb_typeof(labels) = 'object'),         -- null: none
    task_inputs                jsonb   check (jsonb_typeof(task_inputs) = 'object'),    -- null: none
    empirical_policy           jsonb   check (jsonb_typeof(empirical_policy) = 'object'),
    owes_hooks                 boolean not null default false, -- completed; its hooks not yet called
    created                    bigint  not null,
    check ((state_type is null) = (state_timestamp is null)),
    check ((state_type is null) = (state_id is null))
);

-- a key that begins with ~ is a digest of the task too, so that nearly all do without its name here
create unique index task_run_by_call on task_run (flow_run_id, dynamic_key,
    (case when substr(dynamic_key, 1, 1) = '~' then '' else task_key end))
    where flow_run_id is not null;
-- NULL differs from NULL in a unique index; a run outside a flow has a key all the same
create unique index task_run_by_call_outside_flows on task_run (task_key, dynamic_key)
    where flow_run_id is null;
create index task_run_by_flow_run on task_run (flow_run_id, id);
create index task_run_ended_outside_flows on task_run (state_type, end_time, id)
    where flow_run_id is null and end_time is not null;
create index task_run_owned on task_run (owner_id)
    where owner_id is not null and end_time is null;
create index task_run_not_completed on task_run (state_type, id)
    where state_type is distinct from 'COMPLETED';

create table task_run_state (
    task_run_id    uuid    not null references task_run (id) on delete cascade,
    timestamp      bigint  not null,
    id             uuid    not null,
    type           text    not null check (type in ('SCHEDULED', 'PENDING', 'RUNNING', 'COMPLETED',
                           'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED', 'CANCELLING')),
    name           text    not null,
    message        text,
    state_details  jsonb   check (jsonb_typeof(state_details) = 'object'),
    data           bytea,
    data_format    text,
    primary key (task_run_id, timestamp),
    check ((data is null) = (data_format is null))
);

create index task_run_state_with_file on task_run_state (data)
    where substr(data_format, 1, 5) = 'file ';

-- Flow runs with hooks that were or will be owed to their end: until the hooks were called. Runs
-- of flows without such hooks have no row here.
create table owed_hooks (
    flow_run_id  uuid    not null primary key references flow_run (id) on delete cascade,
    epoch        bigint  not null,       -- in which the run was taken that owes them
    claim_id     uuid,                   -- of the last attempt to call them for a dead owner
    claimer_id   uuid    references process (id) on delete set null
);

-- Concurrency limits. Who holds slots of one, or waits for them, has a row in slot_claim; a limit
-- whose slots come back with time counts the slots that were taken instead.
create table concurrency_limit (
    id                     uuid    not null primary key,
    name                   text    not null unique,
    slot_limit             integer not null check (slot_limit >= 0),
    is_active              boolean not null default true,
    slot_decay_per_second  float8  not null default 0 check (slot_decay_per_second >= 0),
    spent                  integer not null default 0 check (spent >= 0),   -- slots taken, where they decay
    spent_at               bigint  not null,                                -- from when on these decay
    spent_claim_id         uuid,                                            -- the claim that took the last of them
    created                bigint  not null,
    updated                bigint  not null
);

-- One row for each limit that a claim is about. A claim is made by one block or one task run; claims
-- are served in the order of their ids, which is that in which they were made.
create table slot_claim (
    claim_id     uuid    not null,
    limit_id     uuid    not null references concurrency_limit (id) on delete cascade,
    state        text    not null check (state in ('WAITING', 'HOLDING')),
    slots        integer not null check (slots > 0),
    owner_id     uuid    not null,               -- the process; its claims end with it
    holder_type  text,                           -- flow_run, task_run, or what the caller says
    holder_id    uuid,
    since        bigint  not null,               -- when it began to wait, or to hold
    lease        bigint,                         -- how long other hosts believe in it; null on one host
    expires      bigint,
    primary key (claim_id, limit_id),
    check ((lease is null) = (expires is null))
);

create index slot_claim_by_limit on slot_claim (limit_id, state, claim_id, slots);
create index slot_claim_by_owner on slot_claim (owner_id);

-- What runs have logged. No key to the runs: a line may be stored before the announced start of its
-- task run is.

create table log (
    timestamp    bigint  not null,
    id           uuid    not null,                            -- of its batch, and its place there
    level        integer not null,                            -- as logging numbers them
    name         text    not null,                            -- of the logger
    message      text    not null,
    flow_run_id  uuid,
    task_run_id  uuid,
    primary key (timestamp, id)
);

create index log_by_flow_run on log (flow_run_id, timestamp, id) where flow_run_id is not null;
create index log_by_task_run on log (task_run_id, timestamp, id) where task_run_id is not null;

-- Named values that runs and people share.
create table variable (
    id       uuid    not null primary key,
    name     text    collate "C" not null unique,
    value    json    not null,
    tags     jsonb   not null default '[]' check (jsonb_typeof(tags) = 'array'),
    created  bigint  not null,
    updated  bigint  not null
);

-- What runs show to people. Those of one key are versions of one thing, the last of which is found
-- by the key.
create table artifact (
    id           uuid    not null primary key,
    key          text    collate "C",
    type         text,
    description  text,
    data         json    not null,
    metadata     jsonb   check (jsonb_typeof(metadata) = 'object'),
    flow_run_id  uuid,                           -- no key: they outlive their run
    task_run_id  uuid,
    created      bigint  not null,
    updated      bigint  not null
);

create index artifact_by_key on artifact (key, id) where key is not null;
create index artifact_by_flow_run on artifact (flow_run_id, id) where flow_run_id is not null;
create index artifact_by_task_run on artifact (task_run_id, id) where task_run_id is not null;

create table artifact_collection (
    key        text    not null primary key,
    latest_id  uuid    not null,
    created    bigint  not null,
    updated    bigint  not null
);

-- Results that other runs may use, by their cache keys. The value is a copy: it may outlive its run.
create table cached_result (
    key          text    not null primary key check (length(key) between 1 and 2000),
    expiration   bigint,                               -- null: it does not expire
    task_run_id  uuid    not null,                     -- that computed it
    state_id     uuid    not null,
    data         bytea   not null,
    data_format  text    not null,
    created      bigint  not null
);

create index cached_result_by_task_run on cached_result (task_run_id);
create index cached_result_expiring on cached_result (expiration) where expiration is not null;
create index cached_result_with_file on cached_result (data)
    where substr(data_format, 1, 5) = 'file ';

-- Who computes the result of a cache key now, where only one may.
create table cache_lock (
    key       text    not null primary key check (length(key) >= 1),
    holder    text    not null,
    owner_id  uuid    not null,                        -- the process; its locks end with it
    since     bigint  not null
);

create index cache_lock_by_owner on cache_lock (owner_id);

-- Flow runs that retention is removing, a whole tree at a time: from here on nobody can resume
-- them, and whoever comes next goes on with what is left of them.
create table removal (
    flow_run_id  uuid    not null primary key references flow_run (id) on delete cascade,
    depth        integer not null check (depth >= 0)          -- below the run that nobody called
);

create index removal_in_order on removal (depth, flow_run_id);

-- What some process does from time to time, and from when on the next one may.
create table upkeep (
    name      text    not null primary key,
    due       bigint  not null,
    position  uuid                                            -- how far the last one came
);

-- The same tables for people, with times.

create view flows as
select id, name, tags, labels, to_timestamp(created / 1e6) as created
from flow;

create view flow_runs as
select flow_run.id, flow.name as flow_name, flow_run.name, state_type, state_name,
       to_timestamp(state_timestamp / 1e6) as state_timestamp,
       run_count,
       to_timestamp(expected_start_time / 1e6) as expected_start_time,
       to_timestamp(start_time / 1e6) as start_time,
       to_timestamp(end_time / 1e6) as end_time,
       total_run_time / 1e6 as total_run_time_seconds,
       parameters, unstored_parameters, flow_run.tags, on_crash, flow_version, idempotency_key,
       to_timestamp(flow_run.created / 1e6) as created
from flow_run join flow on flow.id = flow_run.flow_id;

create view task_runs as
select id, flow_run_id, name, task_key, state_type, state_name,
       to_timestamp(state_timestamp / 1e6) as state_timestamp,
       run_count,
       to_timestamp(start_time / 1e6) as start_time,
       to_timestamp(end_time / 1e6) as end_time,
       total_run_time / 1e6 as total_run_time_seconds,
       coalesce(tags, '[]') as tags,
       to_timestamp(created / 1e6) as created
from task_run;

create view flow_run_states as
select flow_run_id, to_timestamp(timestamp / 1e6) as timestamp, type, name, message, state_details,
       case data_format when 'json' then convert_from(data, 'UTF8') end as value,
       data_format
from flow_run_state;

create view task_run_states as
select task_run_id, to_timestamp(timestamp / 1e6) as timestamp, type, name, message, state_details,
       case data_format when 'json' then convert_from(data, 'UTF8') end as value,
       data_format
from task_run_state;

create view logs as
select to_timestamp(timestamp / 1e6) as timestamp, level, name, message, flow_run_id, task_run_id
from log;

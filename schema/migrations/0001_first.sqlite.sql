-- The first schema: flows, their runs and states, processes, and the work queue.
-- SQLite variant; its twin is 0001_first.postgres.sql. Same tables, columns and keys.
--
-- Conventions
--   ids         UUIDv7 as 16 bytes, made by the caller; in order of time, so that keys append
--   times       microseconds since 1970-01-01 UTC, never read from the database's clock
--   durations   microseconds
--   JSON        text, checked to be JSON
--   booleans    0 or 1
--   one of many a chain of "or", the frequent first: for "in" with more than two words SQLite makes a
--               table of them each time that a statement runs

create table flow (
    id       blob    not null primary key check (length(id) = 16),
    name     text    not null unique,
    tags     text    not null default '[]' check (json_type(tags) = 'array'),
    labels   text    not null default '{}' check (json_type(labels) = 'object'),
    created  integer not null,
    updated  integer not null
) strict, without rowid;

-- One row for each process that has run something here. Whether it still lives is not written
-- down for its own host: it holds byte life_slot of the life file locked for as long as it does.
-- Other hosts, on a server, go by its lease.
create table process (
    id            blob    not null primary key check (length(id) = 16),
    host          text    not null,
    boot_id       text,                  -- changes when the host restarts; null where unknown
    pid           integer not null,
    pid_started   integer,               -- clock ticks since boot; tells a reused pid
    life_file     text,                  -- device:inode of the file whose lock tells that it lives
    life_slot     integer,
    started       integer not null,
    ended         integer,               -- null until it closed, or was found dead
    epoch         integer not null default 0,   -- how often it was found dead, and was not
    lease         integer,               -- how long other hosts believe in it unheard; null: no lease
    expires       integer,               -- until when, by the database's clock
    check ((lease is null) = (expires is null))
) strict, without rowid;

create index process_living on process (host) where ended is null;

create table work_pool (
    id                 blob    not null primary key check (length(id) = 16),
    name               text    not null unique,
    description        text,
    type               text    not null default 'process',
    base_job_template  text    not null default '{}' check (json_type(base_job_template) = 'object'),
    is_paused          integer not null default 0 check (is_paused in (0, 1)),
    concurrency_limit  integer check (concurrency_limit >= 0),
    default_queue_id   blob    references work_queue (id) deferrable initially deferred,
    status             text    not null default 'NOT_READY'
                               check (status in ('READY', 'NOT_READY', 'PAUSED')),
    created            integer not null,
    updated            integer not null
) strict, without rowid;

create table work_queue (
    id                 blob    not null primary key check (length(id) = 16),
    work_pool_id       blob    not null references work_pool (id) on delete cascade,
    name               text    not null,
    description        text    not null default '',
    is_paused          integer not null default 0 check (is_paused in (0, 1)),
    concurrency_limit  integer check (concurrency_limit >= 0),
    priority           integer not null check (priority >= 1),   -- 1 is served first
    status             text    not null default 'NOT_READY'
                               check (status in ('READY', 'NOT_READY', 'PAUSED')),
    last_polled        integer,
    created            integer not null,
    updated            integer not null,
    unique (work_pool_id, name)
) strict, without rowid;

create index work_queue_by_priority on work_queue (work_pool_id, priority, id);

create table deployment (
    id                        blob    not null primary key check (length(id) = 16),
    flow_id                   blob    not null references flow (id) on delete cascade,
    name                      text    not null,
    version                   text,
    description               text,
    tags                      text    not null default '[]' check (json_type(tags) = 'array'),
    labels                    text    not null default '{}' check (json_type(labels) = 'object'),
    parameters                text    not null default '{}' check (json_type(parameters) = 'object'),
    parameter_openapi_schema  text    check (parameter_openapi_schema is null or json_valid(parameter_openapi_schema)),
    enforce_parameter_schema  integer not null default 1 check (enforce_parameter_schema in (0, 1)),
    paused                    integer not null default 0 check (paused in (0, 1)),
    path                      text,
    entrypoint                text,
    job_variables             text    not null default '{}' check (json_type(job_variables) = 'object'),
    work_queue_id             blob    references work_queue (id) on delete set null,
    concurrency_limit         integer check (concurrency_limit > 0),
    concurrency_options       text    check (concurrency_options is null or json_valid(concurrency_options)),
    status                    text    not null default 'NOT_READY'
                                      check (status in ('READY', 'NOT_READY')),
    last_polled               integer,
    created                   integer not null,
    updated                   integer not null,
    unique (flow_id, name)
) strict, without rowid;

create index deployment_by_work_queue on deployment (work_queue_id) where work_queue_id is not null;

create table flow_run (
    id                         blob    not null primary key check (length(id) = 16),
    flow_id                    blob    not null references flow (id) on delete cascade,
    name                       text    not null,
    -- the current state, copied from its row in flow_run_state
    state_id                   blob,
    state_type                 text    check (state_type = 'COMPLETED' or state_type = 'RUNNING'
                                              or state_type = 'PENDING'
                                              or state_type = 'SCHEDULED' or state_type = 'FAILED'
                                              or state_type = 'CANCELLED'
                                              or state_type = 'CRASHED' or state_type = 'PAUSED'
                                              or state_type = 'CANCELLING'),
    state_name                 text,
    state_timestamp            integer,
    run_count                  integer not null default 0 check (run_count >= 0),
    expected_start_time        integer,
    next_scheduled_start_time  integer,
    start_time                 integer,
    end_time                   integer,
    total_run_time             integer not null default 0 check (total_run_time >= 0),
    -- who runs it: a write that names another epoch than this one changes nothing
    owner_id                   blob    references process (id) on delete set null,
    epoch                      integer not null default 0,
    on_crash                   text    not null default 'fail' check (on_crash in ('fail', 'resume')),
    -- resumes in a row that nobody asked for by hand, without one more completed task
    auto_resumes               integer not null default 0 check (auto_resumes >= 0),
    completed_at_resume        integer not null default 0,   -- its completed tasks at the last of them
    -- what it was called with
    parameters                 text    not null default '{}' check (json_type(parameters) = 'object'),
    unstored_parameters        text    not null default '{}'    -- name: type, of those not storable
                                       check (json_type(unstored_parameters) = 'object'),
    parameters_hash            blob,
    entrypoint                 text,                            -- module:qualified name of the function
    flow_version               text,
    idempotency_key            text,
    tags                       text    not null default '[]' check (json_type(tags) = 'array'),
    labels                     text    not null default '{}' check (json_type(labels) = 'object'),
    empirical_policy           text    not null default '{}' check (json_type(empirical_policy) = 'object'),
    created_by                 text    check (created_by is null or json_valid(created_by)),
    infrastructure_pid         text,
    job_variables              text    not null default '{}' check (json_type(job_variables) = 'object'),
    -- where it came from and where it waits
    parent_task_run_id         blob,
    deployment_id              blob,                            -- no key: the runs outlive their deployment
    deployment_version         text,
    auto_scheduled             integer not null default 0 check (auto_scheduled in (0, 1)),
    work_queue_id              blob    references work_queue (id) on delete set null,
    claim_id                   blob,                            -- the claim that took it last
    created                    integer not null,
    updated                    integer not null,
    check ((state_type is null) = (state_timestamp is null)),
    check ((state_type is null) = (state_id is null))
) strict, without rowid;

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
    flow_run_id    blob    not null references flow_run (id) on delete cascade,
    timestamp      integer not null,
    id             blob    not null check (length(id) = 16),     -- also the id of its event
    type           text    not null check (type = 'COMPLETED' or type = 'RUNNING'
                                           or type = 'PENDING' or type = 'SCHEDULED'
                                           or type = 'FAILED' or type = 'CANCELLED'
                                           or type = 'CRASHED' or type = 'PAUSED'
                                           or type = 'CANCELLING'),
    name           text    not null,
    message        text,
    state_details  text    check (json_type(state_details) = 'object'),   -- null: all defaults
    data           blob,                                          -- an encoded value or error
    data_format    text,                                          -- how data is encoded
    primary key (flow_run_id, timestamp),
    check ((data is null) = (data_format is null))
) strict, without rowid;

-- which files results are in: they are kept as long as a row is found here
create index flow_run_state_with_file on flow_run_state (data)
    where substr(data_format, 1, 5) = 'file ';

-- Inputs of flow runs: what a pause asks for, how it is answered, and what runs are sent.
create table flow_run_input (
    flow_run_id  blob    not null references flow_run (id) on delete cascade,
    key          text    not null check (key not glob '*[^a-z0-9-]*' and key <> ''),
    id           blob    not null check (length(id) = 16),
    value        text    not null check (json_valid(value)),
    sender       text,
    created      integer not null,
    primary key (flow_run_id, key)
) strict, without rowid;

-- What flow runs wait for by themselves, and have waited for: a time, or a signal until a time.
create table flow_run_wait (
    flow_run_id  blob    not null references flow_run (id) on delete cascade,
    key          text    not null check (key not glob '*[^a-z0-9-]*' and key <> ''),
    signal       text,                   -- the name of the signal; null: a sleep
    wanted       text    check (wanted is null or json_valid(wanted)),  -- its JSON Schema
    deadline     integer,                -- null: for as long as it takes
    is_over      integer not null default 0 check (is_over in (0, 1)),  -- the deadline came first
    state_id     blob,                   -- of the state by which the run is suspended for it
    created      integer not null,
    primary key (flow_run_id, key),
    check (signal is not null or deadline is not null)
) strict, without rowid;

create table task_run (
    id                         blob    not null primary key check (length(id) = 16),
    flow_run_id                blob    references flow_run (id) on delete cascade,
    parent_task_run_id         blob,
    name                       text    not null,
    task_key                   text    not null,     -- the function's qualified name
    dynamic_key                text    not null,     -- which call of it: parent, inputs, occurrence
    call_number                integer not null default 0 check (call_number >= 0),  -- the how-manieth of its task by its parent
    state_id                   blob,
    state_type                 text    check (state_type = 'COMPLETED' or state_type = 'RUNNING'
                                              or state_type = 'PENDING'
                                              or state_type = 'SCHEDULED' or state_type = 'FAILED'
                                              or state_type = 'CANCELLED'
                                              or state_type = 'CRASHED' or state_type = 'PAUSED'
                                              or state_type = 'CANCELLING'),
    state_name                 text,
    state_timestamp            integer,
    run_count                  integer not null default 0 check (run_count >= 0),
    flow_run_run_count         integer not null default 0,
    -- of one outside of flows: who runs it, and as flow_run.epoch; else its flow run says so
    owner_id                   blob,
    epoch                      integer not null default 0,
    expected_start_time        integer,
    next_scheduled_start_time  integer,
    start_time                 integer,
    end_time                   integer,
    total_run_time             integer not null default 0 check (total_run_time >= 0),
    source_hash                text,                 -- of the function's source, beside the identity
    task_version               text,
    tags                       text    check (json_type(tags) = 'array'),            -- null: none
    labels                     text    check (json_type(labels) = 'object'),         -- null: none
    task_inputs                text    check (json_type(task_inputs) = 'object'),    -- null: none
    empirical_policy           text    check (json_type(empirical_policy) = 'object'),
    owes_hooks                 integer not null default 0      -- completed; its hooks not yet called
                               check (owes_hooks in (0, 1)),
    created                    integer not null,
    check ((state_type is null) = (state_timestamp is null)),
    check ((state_type is null) = (state_id is null))
) strict, without rowid;

-- a key that begins with ~ is a digest of the task too, so that nearly all do without its name here
create unique index task_run_by_call on task_run (flow_run_id, dynamic_key,
    case when substr(dynamic_key, 1, 1) = '~' then '' else task_key end)
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
    task_run_id    blob    not null references task_run (id) on delete cascade,
    timestamp      integer not null,
    id             blob    not null check (length(id) = 16),
    type           text    not null check (type = 'COMPLETED' or type = 'RUNNING'
                                           or type = 'PENDING' or type = 'SCHEDULED'
                                           or type = 'FAILED' or type = 'CANCELLED'
                                           or type = 'CRASHED' or type = 'PAUSED'
                                           or type = 'CANCELLING'),
    name           text    not null,
    message        text,
    state_details  text    check (json_type(state_details) = 'object'),
    data           blob,
    data_format    text,
    primary key (task_run_id, timestamp),
    check ((data is null) = (data_format is null))
) strict, without rowid;

create index task_run_state_with_file on task_run_state (data)
    where substr(data_format, 1, 5) = 'file ';

-- Flow runs with hooks that were or will be owed to their end: until the hooks were called. Runs
-- of flows without such hooks have no row here.
create table owed_hooks (
    flow_run_id  blob    not null primary key references flow_run (id) on delete cascade,
    epoch        integer not null,       -- in which the run was taken that owes them
    claim_id     blob,                   -- of the last attempt to call them for a dead owner
    claimer_id   blob    references process (id) on delete set null
) strict, without rowid;

-- Concurrency limits. Who holds slots of one, or waits for them, has a row in slot_claim; a limit
-- whose slots come back with time counts the slots that were taken instead.
create table concurrency_limit (
    id                     blob    not null primary key check (length(id) = 16),
    name                   text    not null unique,
    slot_limit             integer not null check (slot_limit >= 0),
    is_active              integer not null default 1 check (is_active in (0, 1)),
    slot_decay_per_second  real    not null default 0 check (slot_decay_per_second >= 0),
    spent                  integer not null default 0 check (spent >= 0),   -- slots taken, where they decay
    spent_at               integer not null,                                -- from when on these decay
    spent_claim_id         blob,                                            -- the claim that took the last of them
    created                integer not null,
    updated                integer not null
) strict, without rowid;

-- One row for each limit that a claim is about. A claim is made by one block or one task run; claims
-- are served in the order of their ids, which is that in which they were made.
create table slot_claim (
    claim_id     blob    not null check (length(claim_id) = 16),
    limit_id     blob    not null references concurrency_limit (id) on delete cascade,
    state        text    not null check (state in ('WAITING', 'HOLDING')),
    slots        integer not null check (slots > 0),
    owner_id     blob    not null,               -- the process; its claims end with it
    holder_type  text,                           -- flow_run, task_run, or what the caller says
    holder_id    blob,
    since        integer not null,               -- when it began to wait, or to hold
    lease        integer,                        -- how long other hosts believe in it; null on one host
    expires      integer,
    primary key (claim_id, limit_id),
    check ((lease is null) = (expires is null))
) strict, without rowid;

create index slot_claim_by_limit on slot_claim (limit_id, state, claim_id, slots);
create index slot_claim_by_owner on slot_claim (owner_id);

-- What runs have logged, clustered by time, so that lines append. No key to the runs: a line may be
-- stored before the announced start of its task run is.

create table log (
    timestamp    integer not null,
    id           blob    not null check (length(id) = 16),   -- of its batch, and its place there
    level        integer not null,                            -- as logging numbers them
    name         text    not null,                            -- of the logger
    message      text    not null,
    flow_run_id  blob    check (flow_run_id is null or length(flow_run_id) = 16),
    task_run_id  blob    check (task_run_id is null or length(task_run_id) = 16),
    primary key (timestamp, id)
) strict, without rowid;

create index log_by_flow_run on log (flow_run_id, timestamp, id) where flow_run_id is not null;
create index log_by_task_run on log (task_run_id, timestamp, id) where task_run_id is not null;

-- Named values that runs and people share.
create table variable (
    id       blob    not null primary key check (length(id) = 16),
    name     text    not null unique,
    value    text    not null check (json_valid(value)),
    tags     text    not null default '[]' check (json_type(tags) = 'array'),
    created  integer not null,
    updated  integer not null
) strict, without rowid;

-- What runs show to people. Those of one key are versions of one thing, the last of which is found
-- by the key.
create table artifact (
    id           blob    not null primary key check (length(id) = 16),
    key          text,
    type         text,
    description  text,
    data         text    not null check (json_valid(data)),
    metadata     text    check (json_type(metadata) = 'object'),
    flow_run_id  blob,                           -- no key: they outlive their run
    task_run_id  blob,
    created      integer not null,
    updated      integer not null
) strict, without rowid;

create index artifact_by_key on artifact (key, id) where key is not null;
create index artifact_by_flow_run on artifact (flow_run_id, id) where flow_run_id is not null;
create index artifact_by_task_run on artifact (task_run_id, id) where task_run_id is not null;

create table artifact_collection (
    key        text    not null primary key,
    latest_id  blob    not null,
    created    integer not null,
    updated    integer not null
) strict, without rowid;

-- Results that other runs may use, by their cache keys. The value is a copy: it may outlive its run.
create table cached_result (
    key          text    not null primary key check (length(key) between 1 and 2000),
    expiration   integer,                              -- null: it does not expire
    task_run_id  blob    not null check (length(task_run_id) = 16),   -- that computed it
    state_id     blob    not null check (length(state_id) = 16),
    data         blob    not null,
    data_format  text    not null,
    created      integer not null
) strict;

create index cached_result_by_task_run on cached_result (task_run_id);
create index cached_result_expiring on cached_result (expiration) where expiration is not null;
create index cached_result_with_file on cached_result (data)
    where substr(data_format, 1, 5) = 'file ';

-- Who computes the result of a cache key now, where only one may.
create table cache_lock (
    key       text    not null primary key check (length(key) >= 1),
    holder    text    not null,
    owner_id  blob    not null check (length(owner_id) = 16),   -- the process; its locks end with it
    since     integer not null
) strict, without rowid;

create index cache_lock_by_owner on cache_lock (owner_id);

-- Flow runs that retention is removing, a whole tree at a time: from here on nobody can resume
-- them, and whoever comes next goes on with what is left of them.
create table removal (
    flow_run_id  blob    not null primary key references flow_run (id) on delete cascade,
    depth        integer not null check (depth >= 0)          -- below the run that nobody called
) strict, without rowid;

create index removal_in_order on removal (depth, flow_run_id);

-- What some process does from time to time, and from when on the next one may.
create table upkeep (
    name      text    not null primary key,
    due       integer not null,
    position  blob    check (position is null or length(position) = 16)   -- how far the last one came
) strict, without rowid;

-- The same tables for people: readable ids and times, in any SQLite tool.

create view flows as
select substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-'
       || substr(h, 17, 4) || '-' || substr(h, 21) as id,
       name, tags, labels,
       strftime('%Y-%m-%d %H:%M:%f', created / 1e6, 'unixepoch') as created
from (select lower(hex(id)) as h, * from flow);

create view flow_runs as
select substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-'
       || substr(h, 17, 4) || '-' || substr(h, 21) as id,
       flow_name, name, state_type, state_name,
       strftime('%Y-%m-%d %H:%M:%f', state_timestamp / 1e6, 'unixepoch') as state_timestamp,
       run_count,
       strftime('%Y-%m-%d %H:%M:%f', expected_start_time / 1e6, 'unixepoch') as expected_start_time,
       strftime('%Y-%m-%d %H:%M:%f', start_time / 1e6, 'unixepoch') as start_time,
       strftime('%Y-%m-%d %H:%M:%f', end_time / 1e6, 'unixepoch') as end_time,
       total_run_time / 1e6 as total_run_time_seconds,
       parameters, unstored_parameters, tags, on_crash, flow_version, idempotency_key,
       strftime('%Y-%m-%d %H:%M:%f', created / 1e6, 'unixepoch') as created
from (select lower(hex(flow_run.id)) as h, flow.name as flow_name, flow_run.*
      from flow_run join flow on flow.id = flow_run.flow_id);

create view task_runs as
select substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-'
       || substr(h, 17, 4) || '-' || substr(h, 21) as id,
       substr(f, 1, 8) || '-' || substr(f, 9, 4) || '-' || substr(f, 13, 4) || '-'
       || substr(f, 17, 4) || '-' || substr(f, 21) as flow_run_id,
       name, task_key, state_type, state_name,
       strftime('%Y-%m-%d %H:%M:%f', state_timestamp / 1e6, 'unixepoch') as state_timestamp,
       run_count,
       strftime('%Y-%m-%d %H:%M:%f', start_time / 1e6, 'unixepoch') as start_time,
       strftime('%Y-%m-%d %H:%M:%f', end_time / 1e6, 'unixepoch') as end_time,
       total_run_time / 1e6 as total_run_time_seconds,
       coalesce(tags, '[]') as tags,
       strftime('%Y-%m-%d %H:%M:%f', created / 1e6, 'unixepoch') as created
from (select lower(hex(id)) as h, lower(hex(flow_run_id)) as f, * from task_run);

create view flow_run_states as
select substr(f, 1, 8) || '-' || substr(f, 9, 4) || '-' || substr(f, 13, 4) || '-'
       || substr(f, 17, 4) || '-' || substr(f, 21) as flow_run_id,
       strftime('%Y-%m-%d %H:%M:%f', timestamp / 1e6, 'unixepoch') as timestamp,
       type, name, message, state_details,
       case data_format when 'json' then cast(data as text) end as value,
       data_format
from (select lower(hex(flow_run_id)) as f, * from flow_run_state);

create view task_run_states as
select substr(t, 1, 8) || '-' || substr(t, 9, 4) || '-' || substr(t, 13, 4) || '-'
       || substr(t, 17, 4) || '-' || substr(t, 21) as task_run_id,
       strftime('%Y-%m-%d %H:%M:%f', timestamp / 1e6, 'unixepoch') as timestamp,
       type, name, message, state_details,
       case data_format when 'json' then cast(data as text) end as value,
       data_format
from (select lower(hex(task_run_id)) as t, * from task_run_state);

create view logs as
select strftime('%Y-%m-%d %H:%M:%f', timestamp / 1e6, 'unixepoch') as timestamp,
       level, name, message,
       substr(f, 1, 8) || '-' || substr(f, 9, 4) || '-' || substr(f, 13, 4) || '-'
       || substr(f, 17, 4) || '-' || substr(f, 21) as flow_run_id,
       substr(t, 1, 8) || '-' || substr(t, 9, 4) || '-' || substr(t, 13, 4) || '-'
       || substr(t, 17, 4) || '-' || substr(t, 21) as task_run_id
from (select lower(hex(flow_run_id)) as f, lower(hex(task_run_id)) as t, * from log);

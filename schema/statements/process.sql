-- Processes that run, or ran, something here. Leases are compared with the server's clock, as it was
-- when the transaction began; on SQLite, where one host is all there is, nobody has a lease.

-- name: register [sqlite]
-- Nothing when it is there, and not taken for dead; one that was is back, in another epoch. Key: id.
insert into process (
    id, host, boot_id, pid, pid_started, life_file, life_slot, started, lease, expires
)
values (
    :id, :host, :boot_id, :pid, :pid_started, :life_file, :life_slot, :now, :lease, :now + :lease
)
on conflict (id) do update
set ended = null, epoch = process.epoch + 1
where process.ended is not null;

-- name: register [postgres]
-- The same; and a lease that is half over begins anew. As an update first, which locks nothing when
-- there is nothing to change: what conflicts with an insert would be locked, and the threads of a
-- process would begin their runs one after the other. Key: id.
with back as (
    update process
    set ended = null,
        epoch = epoch + case when ended is null then 0 else 1 end,
        expires = cast(extract(epoch from now()) * 1000000 as bigint) + lease
    where id = :id
          and (ended is not null
              or expires < cast(extract(epoch from now()) * 1000000 as bigint) + lease / 2)
)
insert into process (
    id, host, boot_id, pid, pid_started, life_file, life_slot, started, lease, expires
)
values (
    :id, :host, :boot_id, :pid, :pid_started, :life_file, :life_slot, :now, :lease,
    cast(extract(epoch from now()) * 1000000 as bigint) + :lease
)
on conflict (id) do nothing;

-- name: register_ended
-- A process that has ended already. Nothing when it is there. Key: id.
insert into process (
    id, host, boot_id, pid, pid_started, life_file, life_slot, started, ended, epoch
)
values (
    :id, :host, :boot_id, :pid, :pid_started, :life_file, :life_slot, :now, :now, :epoch
)
on conflict (id) do nothing;

-- name: not_ended [sqlite]
-- Those that have not said goodbye. Index: process_living.
select id, host, boot_id, pid, pid_started, life_file, life_slot, lease, epoch, false as is_overdue
from process
where ended is null
order by id;

-- name: not_ended [postgres]
-- The same, with whether their leases are over.
select id, host, boot_id, pid, pid_started, life_file, life_slot, lease, epoch,
       coalesce(expires < cast(extract(epoch from now()) * 1000000 as bigint), false) as is_overdue
from process
where ended is null
order by id;

-- name: get [sqlite]
-- Index: primary key.
select id, host, boot_id, pid, pid_started, life_file, life_slot, lease, epoch, false as is_overdue,
       ended
from process
where id = :id;

-- name: get [postgres]
-- The same.
select id, host, boot_id, pid, pid_started, life_file, life_slot, lease, epoch,
       coalesce(expires < cast(extract(epoch from now()) * 1000000 as bigint), false) as is_overdue,
       ended
from process
where id = :id;

-- name: to_bury [sqlite]
-- One that has not ended, before what it left is set right. Index: primary key.
select epoch, false as is_overdue
from process
where id = :id and ended is null;

-- name: to_bury [postgres]
-- The same, locked: it does not come back meanwhile, and two who bury it do so one after the other.
select epoch,
       coalesce(expires < cast(extract(epoch from now()) * 1000000 as bigint), false) as is_overdue
from process
where id = :id and ended is null
for no key update;

-- name: renew [sqlite]
-- It lives, and says so. Index: primary key.
update process
set expires = :now + lease
where id = :id and ended is null and lease is not null;

-- name: renew [postgres]
-- The same; by the caller's clock only where the server has none.
update process
set expires = coalesce(
        cast(extract(epoch from now()) * 1000000 as bigint), cast(:now as bigint)
    ) + lease
where id = :id and ended is null and lease is not null;

-- name: end
-- Index: primary key.
update process set ended = :now where id = :id and ended is null;

-- Processes that run, or ran, something here.

-- name: insert
-- Nothing when it is there. Key: id.
insert into process (id, host, boot_id, pid, pid_started, life_file, life_slot, started)
values (:id, :host, :boot_id, :pid, :pid_started, :life_file, :life_slot, :started)
on conflict (id) do nothing;

-- name: not_ended
-- Those that have not said goodbye. Index: process_living.
select id, host, boot_id, pid, pid_started, life_file, life_slot
from process
where ended is null
order by id;

-- name: get
-- Index: primary key.
select id, host, boot_id, pid, pid_started, life_file, life_slot, ended
from process
where id = :id;

-- name: end
-- Index: primary key.
update process set ended = :now where id = :id and ended is null;

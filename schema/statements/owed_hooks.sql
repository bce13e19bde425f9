-- Hooks that are owed to the end of flow runs. A row is there from the run's beginning until its hooks
-- were called.

-- name: owe
-- With the run, or with its take-over, which begins anew. Key: flow_run_id.
insert into owed_hooks (flow_run_id, epoch)
values (:flow_run_id, :epoch)
on conflict (flow_run_id) do update
set epoch = excluded.epoch, claim_id = null, claimer_id = null;

-- name: settle
-- They were called; nothing when the run was taken over since. Index: primary key.
delete from owed_hooks where flow_run_id = :flow_run_id and epoch = :epoch;

-- name: due
-- Those of runs that have ended, oldest first. The table is as long as there are runs under way that
-- have hooks. Index: primary keys of the other tables.
select owed_hooks.flow_run_id, owed_hooks.epoch, owed_hooks.claim_id, owed_hooks.claimer_id,
       flow_run.owner_id, flow.name as flow_name, flow_run.entrypoint
from owed_hooks
join flow_run on flow_run.id = owed_hooks.flow_run_id
join flow on flow.id = flow_run.flow_id
where flow_run.state_type in ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
order by owed_hooks.flow_run_id;

-- name: claim
-- Take them, unless somebody else did since they were seen. Index: primary key.
update owed_hooks
set claim_id = :claim_id, claimer_id = :claimer_id
where flow_run_id = :flow_run_id and epoch = :epoch
      and (claim_id = :claim_id or claim_id is not distinct from :seen_claim_id);

-- Claims on slots of concurrency limits: one row for each limit that a claim is about.

-- name: insert
-- Nothing when it is there. Key: claim_id, limit_id.
insert into slot_claim (
    claim_id, limit_id, state, slots, owner_id, holder_type, holder_id, since, lease, expires
)
values (
    :claim_id, :limit_id, :claim_state, :slots, :owner_id, :holder_type, :holder_id, :now, :lease,
    :expires
)
on conflict (claim_id, limit_id) do nothing;

-- fragment: with_room
    from concurrency_limit as limits
    join process on process.id = :owner_id and process.ended is null
    where limits.name = :name and limits.is_active and limits.slot_decay_per_second = 0
          and cast(:slots as integer) <= limits.slot_limit - (
              select coalesce(sum(slots), 0)
              from slot_claim
              where limit_id = limits.id and state = 'HOLDING'
          )
          and (cast(:passes_waiters as boolean)
              or not exists (
                  select 1
                  from slot_claim
                  where limit_id = limits.id and state = 'WAITING' and claim_id < :claim_id
              ))

-- name: take [sqlite]
-- All the slots that a claim on one limit asks for, where nothing is in its way: they do not decay,
-- they are free, nobody has waited for them longer, the claim is new, and its process is written down.
-- Else there is no id of a limit, and a row without is ignored: were they selected to be inserted,
-- SQLite would copy them into a table of its own first, which takes ten times as long.
-- Index: unique name, primary keys, slot_claim_by_limit.
insert or ignore into slot_claim (
    limit_id, claim_id, state, slots, owner_id, holder_type, holder_id, since, lease, expires
)
values (
    (
    select limits.id
-- include: with_room
    ),
    :claim_id, 'HOLDING', :slots, :owner_id, :holder_type, :holder_id, :now, :lease, :now + :lease
);

-- name: take [postgres]
-- The same. The limit was locked before, by a statement of its own: this one sees what was taken
-- until then.
insert into slot_claim (
    claim_id, limit_id, state, slots, owner_id, holder_type, holder_id, since, lease, expires
)
select :claim_id, limits.id, 'HOLDING', cast(:slots as integer), process.id, :holder_type,
       :holder_id, :now, :lease,
       cast(extract(epoch from statement_timestamp()) * 1000000 as bigint) + cast(:lease as bigint)
-- include: with_room
on conflict (claim_id, limit_id) do nothing;

-- name: of_claim
-- What a claim is about, with what its limits say. Index: primary key.
select slot_claim.limit_id, slot_claim.state, slot_claim.slots, limits.name,
       limits.slot_decay_per_second
from slot_claim
join concurrency_limit as limits on limits.id = slot_claim.limit_id
where slot_claim.claim_id = :claim_id;

-- name: held
-- How many slots of a limit are held. Index: slot_claim_by_limit.
select cast(coalesce(sum(slots), 0) as integer) as slots
from slot_claim
where limit_id = :limit_id and state = 'HOLDING';

-- name: room
-- How many slots of a limit are held, and whether a claim that was made earlier waits for it.
-- Index: slot_claim_by_limit.
select (
        select cast(coalesce(sum(slots), 0) as integer)
        from slot_claim
        where limit_id = :limit_id and state = 'HOLDING'
    ) as slots,
    exists (
        select 1
        from slot_claim
        where limit_id = :limit_id and state = 'WAITING' and claim_id < :claim_id
    ) as is_behind;

-- name: of_limit
-- Who holds slots of a limit or waits for them, in order. Index: slot_claim_by_limit.
select claim_id, state, slots, owner_id, holder_type, holder_id, since
from slot_claim
where limit_id = :limit_id
order by state, claim_id;

-- name: waiting_of_holder
-- The limits that a process waits for in the name of a run. Index: slot_claim_by_owner.
select limits.id as limit_id, limits.name, limits.slot_limit, slot_claim.since
from slot_claim
join concurrency_limit as limits on limits.id = slot_claim.limit_id
where slot_claim.owner_id = :owner_id and slot_claim.holder_id = :holder_id
      and slot_claim.state = 'WAITING'
order by limits.name;

-- name: delete
-- The claim is over, or takes another form. Index: primary key.
delete from slot_claim where claim_id = :claim_id;

-- name: delete_whole
-- The same, unless it holds slots of a limit that decays: those are not simply free. Index: primary
-- keys.
delete from slot_claim
where claim_id = :claim_id and not exists (
    select 1
    from slot_claim as other
    join concurrency_limit as limits on limits.id = other.limit_id
    where other.claim_id = :claim_id and limits.slot_decay_per_second > 0
);

-- name: delete_of_limit
-- Its slots are free, whoever held them. Index: slot_claim_by_limit.
delete from slot_claim where limit_id = :limit_id and state = 'HOLDING';

-- name: delete_of_owner
-- What a process held and waited for, when it has ended. Index: slot_claim_by_owner.
delete from slot_claim where owner_id = :owner_id;

-- name: delete_of_holders [sqlite]
-- What a process held and waited for in the name of some runs. Index: slot_claim_by_owner.
delete from slot_claim
where owner_id = :owner_id
      and holder_id in (select unhex(value, '-') from json_each(:holder_ids));

-- name: delete_of_holders [postgres]
-- The same.
delete from slot_claim
where owner_id = :owner_id
      and holder_id in (select cast(value as uuid) from jsonb_array_elements_text(:holder_ids) as given (value));

-- name: delete_expired
-- What hosts held and waited for that were not heard of in time. Index: slot_claim_by_limit.
delete from slot_claim where limit_id = :limit_id and expires < :now;

-- name: renew
-- The claims of a process, for the length of their leases from now on. Index: slot_claim_by_owner.
update slot_claim
set expires = :now + lease
where owner_id = :owner_id and lease is not null
returning claim_id;

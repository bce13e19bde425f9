-- What some process does from time to time, whichever comes to it first.

-- name: due
-- From when on the next turn may begin, and how far the last one came. Before the first one: an
-- interval after the database was made.
select coalesce(upkeep.due, made.applied + :interval) as due, upkeep.position as position_id
from (select min(applied) as applied from schema_migration) as made
left join upkeep on upkeep.name = :name;

-- name: claim
-- Take a turn, unless another process was faster. One that lies further ahead than anybody puts it
-- was written by a clock that went wrong. Key: name.
insert into upkeep (name, due)
values (:name, :next_due)
on conflict (name) do update
set due = excluded.due
where upkeep.due <= :now or upkeep.due > :latest_due;

-- name: finish
-- When the next turn may begin, and where. Index: primary key.
update upkeep set due = :next_due, position = :position_id where name = :name;

-- name: position
-- Where something was left. Index: primary key.
select position as position_id from upkeep where name = :name;

-- name: note
-- Note where something was left, which nothing is due for. Key: name.
insert into upkeep (name, due, position)
values (:name, :now, :position_id)
on conflict (name) do update
set due = excluded.due, position = excluded.position;

-- name: forget_notes
-- Forget some notes but for one and the newest others; ids are in the order of their times. There are
-- few. Index: primary key.
delete from upkeep
where name like :names and name <> :name
      and name not in (
          select newest.name
          from upkeep as newest
          where newest.name like :names
          order by newest.position desc
          limit :limit
      );

-- name: size [sqlite]
-- Bytes that hold something, and bytes of the file that hold nothing.
select (page_count - freelist_count) * page_size as used, freelist_count * page_size as free
from pragma_page_count(), pragma_freelist_count(), pragma_page_size();

-- name: size [postgres]
-- Bytes of all tables with their indexes. What holds nothing in them is not known to the server.
select cast(coalesce(sum(pg_catalog.pg_total_relation_size(oid)), 0) as bigint) as used,
       cast(0 as bigint) as free
from pg_catalog.pg_class
where relnamespace = current_schema()::regnamespace and relkind = 'r';

-- The keys of artifacts, each with its newest one.

-- name: upsert
-- Which artifact is the newest of a key. Key: key.
insert into artifact_collection (key, latest_id, created, updated)
values (:key, :latest_id, :now, :now)
on conflict (key) do update
set latest_id = excluded.latest_id, updated = excluded.updated
where excluded.latest_id > artifact_collection.latest_id;

-- name: set_latest
-- Another one, when the newest was deleted. Index: primary key.
update artifact_collection set latest_id = :latest_id, updated = :now where key = :key;

-- name: delete
-- Index: primary key.
delete from artifact_collection where key = :key;

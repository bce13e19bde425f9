-- Which migrations a database has had. Read and written by the migrator alone.

-- name: create_table [sqlite]
create table if not exists schema_migration (
    version   integer not null primary key,
    name      text    not null,
    checksum  text    not null,
    applied   integer not null
) strict;

-- name: create_table [postgres]
create table if not exists schema_migration (
    version   integer not null primary key,
    name      text    not null,
    checksum  text    not null,
    applied   bigint  not null
);

-- name: applied
-- All of them, oldest first: a handful of rows.
select version, name, checksum from schema_migration order by version;

-- name: record
insert into schema_migration (version, name, checksum, applied)
values (:version, :name, :checksum, :applied);

-- name: tables [sqlite]
-- How many tables there are: a database without ours must have none at all.
select count(*) from sqlite_schema where type = 'table';

-- name: tables [postgres]
-- The same of a schema; views count as well.
select count(*)
from pg_catalog.pg_class as relation
join pg_catalog.pg_namespace as schema on schema.oid = relation.relnamespace
where schema.nspname = :schema_name and relation.relkind in ('r', 'p', 'v', 'm', 'f');

-- name: has_schema [postgres]
-- Whether somebody has made the schema.
select count(*) from pg_catalog.pg_namespace where nspname = :schema_name;

-- name: has_record [postgres]
-- Whether the table above exists.
select count(*) from pg_catalog.pg_tables
where schemaname = :schema_name and tablename = 'schema_migration';

-- name: take_lock [postgres]
-- One migrator at a time in each schema of the database, until its transaction ends.
select pg_advisory_xact_lock(hashtextextended('embedded_orch ' || :schema_name, 0));

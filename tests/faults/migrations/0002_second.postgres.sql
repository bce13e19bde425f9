-- A migration that the fault tests add: a new table, and one that has to be changed.
create table remark (
    id    bigint generated always as identity primary key,
    text  text not null
);
insert into remark (text) select name from variable;
alter table variable add column note text not null default 'of old';
alter table variable alter column note set default 'new';

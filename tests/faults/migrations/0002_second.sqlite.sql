-- A migration that the fault tests add: a new table, and one that has to be rebuilt.
create table remark (
    id    integer primary key,
    text  text not null
) strict;
insert into remark (text) select name from variable;
-- rebuild: variable
-- column: note = 'of old'
create table variable (
    id       blob    not null primary key check (length(id) = 16),
    name     text    not null unique,
    value    text    not null check (json_valid(value)),
    tags     text    not null default '[]' check (json_type(tags) = 'array'),
    created  integer not null,
    updated  integer not null,
    note     text    not null default 'new'
) strict;

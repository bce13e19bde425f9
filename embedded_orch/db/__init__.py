"""Sessions and transactions on a SQLite file, on ``:memory:`` and on Postgres, with one API."""

"""Postgres, by psycopg 3."""

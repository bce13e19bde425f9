"""Postgres: a small pool of connections, through psycopg."""

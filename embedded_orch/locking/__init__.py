"""Locks of cache keys, for policies with ``isolation_level="SERIALIZABLE"`` that name a manager.

Without one the database keeps them, which is the right choice for nearly everybody.
"""

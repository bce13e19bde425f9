"""What is unique in each table, declared once for both engines.

A write that may find its row there already names one of these keys in its ``on conflict``. A part
of a key that is NULL differs from every other NULL on both engines, so a key with a part that may
be NULL is declared with the condition under which it holds, and the rows beside it, where they
need one, with a key of their own.
"""

from __future__ import annotations

from typing import NamedTuple

EXPRESSION = "(an expression)"


class Key(NamedTuple):
    """Columns that no two rows of a table share.

    Attributes:
        columns: in the order of the index; :data:`EXPRESSION` for what is none.
        condition: which rows the key is about; None for all.
    """

    columns: tuple[str, ...]
    condition: str | None = None


_ID = Key(("id",))

KEYS: dict[str, tuple[Key, ...]] = {
    "flow": (_ID, Key(("name",))),
    "process": (_ID,),
    "work_pool": (_ID, Key(("name",))),
    "work_queue": (_ID, Key(("work_pool_id", "name"))),
    "deployment": (_ID, Key(("flow_id", "name"))),
    "flow_run": (_ID, Key(("flow_id", "idempotency_key"), "idempotency_key is not null")),
    "flow_run_state": (Key(("flow_run_id", "timestamp")),),
    "task_run": (
        _ID,
        # By its task too, where the dynamic key is not a digest of that.
        Key(("flow_run_id", "dynamic_key", EXPRESSION), "flow_run_id is not null"),
        Key(("task_key", "dynamic_key"), "flow_run_id is null"),
    ),
    "owed_hooks": (Key(("flow_run_id",)),),
    "task_run_state": (Key(("task_run_id", "timestamp")),),
    "concurrency_limit": (_ID, Key(("name",))),
    "cached_result": (Key(("key",)),),
    "cache_lock": (Key(("key",)),),
    "slot_claim": (Key(("claim_id", "limit_id")),),
    "log": (Key(("timestamp", "id")),),
    "variable": (_ID, Key(("name",))),
    "artifact": (_ID,),
    "artifact_collection": (Key(("key",)),),
    "flow_run_input": (Key(("flow_run_id", "key")),),
    "flow_run_wait": (Key(("flow_run_id", "key")),),
    "removal": (Key(("flow_run_id",)),),
    "upkeep": (Key(("name",)),),
    "schema_migration": (Key(("version",)),),
}
"""The unique keys of each table; the first is its primary key."""

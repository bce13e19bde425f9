"""dura: checkpoints of one task, one after the other."""

from __future__ import annotations

import sys

from dura import DurableEngine
from timing import told

job, count, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
engine = DurableEngine(where)
connection = engine._conn()
if job == "steps:normal":
    # It leaves SQLite's default, which is full; this is how it would do without.
    connection.execute("pragma synchronous = normal")
mode = connection.execute("pragma journal_mode").fetchone()[0]
synchronous = connection.execute("pragma synchronous").fetchone()[0]
engine.spawn_task(name="steps", params={})
claimed = engine.claim_task(worker_id="bench")
assert claimed is not None
engine.checkpoint(task_id=claimed.task_id, step_name="first", fn=lambda: 0)
with told(f"journal_mode={mode} synchronous={synchronous}"):
    for number in range(count):
        engine.checkpoint(task_id=claimed.task_id, step_name=f"step-{number}", fn=lambda: 1)

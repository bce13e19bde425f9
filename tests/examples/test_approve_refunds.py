"""A refund waits for a person, who answers in another process."""

from __future__ import annotations

from pathlib import Path

import embedded_orch
from tests.programs import run_example


def test_large_refund_waits_for_a_person_in_another_process(tmp_path: Path) -> None:
    db = tmp_path / "refunds.db"

    small = run_example("approve_refunds.py", "--db", db, "request", "12.50")
    asked = run_example("approve_refunds.py", "--db", db, "request", "250")
    assert small.stdout == "paid: reservation of 12.50\n", small.stderr
    run_id = asked.stdout.split()[-1]
    answered = run_example("approve_refunds.py", "--db", db, "answer", run_id, "no", "--by", "Ann")

    assert answered.stdout == "refused by Ann: reservation of 250\n", answered.stderr
    with embedded_orch.open(db) as orch:
        reserved = orch.task_runs.count(flow_run_id=run_id, name_like="reserve")
        assert reserved == 1

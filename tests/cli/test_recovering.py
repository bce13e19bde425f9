"""``embedded-orch why`` and ``recover``."""

from __future__ import annotations

from pathlib import Path

import embedded_orch
from embedded_orch.process import process_facts
from tests.cli.conftest import Command
from tests.store.builders import a_flow_run, an_owner


def a_run_of_a_dead_process(url: str) -> str:
    with embedded_orch.open(url) as orch:
        process = orch.engine.process
        dead = an_owner(orch.database, process, host=process_facts().host, boot_id="before")
        return str(a_flow_run(orch.database, process, owner_id=dead.id))


def test_why_says_what_died_and_recover_sets_it_right(tmp_path: Path, command: Command) -> None:
    url = str(tmp_path / "runs.db")
    run_id = a_run_of_a_dead_process(url)

    told = command("why", run_id[:13], "--db", url)
    done = command("recover", "--db", url)
    again = command("recover", run_id, "--force", "--db", url)

    assert (told.status, "died" in told.out) == (0, True)
    assert "What moves it: orch.recover() now" in told.out
    assert done.out.splitlines() == [
        "1 dead process(es) found, 1 flow run(s) set Crashed",
        f"  {run_id} Crashed",
    ]
    assert again.out == "nothing to recover\n"


def test_force_asks_for_a_run(tmp_path: Path, command: Command) -> None:
    url = str(tmp_path / "runs.db")
    a_run_of_a_dead_process(url)

    refused = command("recover", "--force", "--db", url)

    assert (refused.status, "say which" in refused.err) == (1, True)

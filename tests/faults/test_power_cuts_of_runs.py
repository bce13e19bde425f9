"""What runs of flows and tasks keep through a kill and a power cut, and that we would notice.

The orchestrator itself writes here, through its own data layer, and in a share of the states it is
opened again and resumes what it finds. ``--seed 7`` repeats the states of a seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

import embedded_orch
from tests.faults.orchestrator_workload import (
    Calls,
    Ledger,
    OrchestratorWorkload,
    value_of_flow,
)
from tests.faults.power_cuts import (
    ALLOWED_AFTER_KILL,
    ALLOWED_AFTER_POWER_CUT,
    State,
    Survey,
    TornOperation,
    Verdict,
    killed_states,
    main,
    power_cut_states,
    record,
    survey,
)
from tests.faults.recording_vfs import Create, Log, Sync

DAMAGE = {Verdict.HOLE, Verdict.TORN, Verdict.CORRUPT}
THREADS = (1, 4)


class Recording(NamedTuple):
    """A workload that ran, and what it wrote."""

    workload: OrchestratorWorkload
    log: Log
    durability: str

    def after_power_cuts(
        self, folder: Path, *, states: int, seed: int, as_under: str | None = None
    ) -> Survey:
        """Power cuts, judged as under this durability or another."""
        judged_as = as_under or self.durability
        chosen = power_cut_states(self.log, seed=seed, states=states)
        return self._survey(chosen, ALLOWED_AFTER_POWER_CUT[judged_as], folder, go_on_every=25)

    def after_kills(self, folder: Path, *, every: int) -> Survey:
        """Every nth state that a killed process may leave."""
        chosen = killed_states(self.log, every=every)
        return self._survey(chosen, ALLOWED_AFTER_KILL, folder, go_on_every=25 * every)

    def _survey(
        self,
        states: Iterator[State],
        allowed: frozenset[Verdict],
        folder: Path,
        *,
        go_on_every: int,
    ) -> Survey:
        result = survey(
            self.log,
            states,
            check=self.workload.held_operations,
            allowed=allowed,
            folder=str(folder),
            # Nothing can be built on a file that may be damaged without a sign of it.
            go_on=None if self.durability == "off" else self.workload.go_on,
            go_on_every=go_on_every,
        )
        print(f"durability {self.durability}: {result}")
        return result


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Recording]:
    """What runs wrote under a durability, from so many threads; recorded once."""

    @cache
    def make(durability: str, threads: int) -> Recording:
        folder = tmp_path_factory.mktemp("recording")
        workload = OrchestratorWorkload(threads=threads)
        log = record(workload, durability=durability, folder=str(folder))
        return Recording(workload, log, durability)

    return make


Record = Callable[[str, int], Recording]


# -- What must hold ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_cuts_leave_of_runs_what_the_durability_promises(
    durability: str, threads: int, recording: Record, tmp_path: Path, seed: int
) -> None:
    """500 states in all, and in every 25th of them the runs are resumed.

    Seen to fail with synchronous=NORMAL under ``full``, with callers answered before their commit,
    and with a resume that calls again what is completed on record.
    """
    result = recording(durability, threads).after_power_cuts(tmp_path, states=125, seed=seed)

    assert result.findings == []
    assert result.went_on == 5


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_cuts_lose_no_run_where_there_is_no_log(
    durability: str, tmp_path: Path, seed: int
) -> None:
    """With journal="truncate", where both settings sync alike.

    Seen to fail with synchronous=NORMAL.
    """
    workload = OrchestratorWorkload(size=6, journal="truncate")
    log = record(workload, durability=durability, folder=str(tmp_path))

    result = Recording(workload, log, "full").after_power_cuts(tmp_path, states=100, seed=seed)

    assert "recorded.db-journal" in {e.name for e in log.entries if isinstance(e, Create)}
    assert result.findings == []
    assert result.went_on == 4


@pytest.mark.slow
@pytest.mark.parametrize("threads", THREADS)
def test_a_killed_process_loses_no_run_that_was_acknowledged(
    threads: int, recording: Record, tmp_path: Path
) -> None:
    """A share of all kills, spread evenly. ``full`` syncs more often, and writes the same."""
    result = recording("normal", threads).after_kills(tmp_path, every=60)

    assert result.states > 50
    assert result.findings == []
    assert result.went_on > 1


def test_the_files_of_locks_may_be_lost_or_hold_anything(tmp_path: Path) -> None:
    """Their names are in no directory that was synced, and their bytes in no file that was.

    The database's own name is made durable with the log beside it, by the log's first sync.
    """
    path = tmp_path / "orch.db"
    calls = Calls(Ledger(Log()))
    with embedded_orch.open(path):
        calls.report(2)

    for suffix in ("-lock", "-owners"):
        Path(f"{path}{suffix}").unlink()
    with embedded_orch.open(path):
        calls.report(4)
    for suffix in ("-lock", "-owners"):
        Path(f"{path}{suffix}").write_bytes(os.urandom(4096))
    with embedded_orch.open(path) as orch:
        completed = orch.flow_runs.find(flow_name="report", state_type="COMPLETED")
        found = sorted(run.parameters["call"] for run in completed)
        value = calls.report(6)

    assert found == [2, 4]
    assert value == value_of_flow(6)


# -- What must be found, or the harness is broken ------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("threads", THREADS)
def test_without_syncs_power_cuts_damage_what_runs_wrote(
    threads: int, recording: Record, tmp_path: Path, seed: int
) -> None:
    result = recording("off", threads).after_power_cuts(tmp_path, states=250, seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


@pytest.mark.slow
def test_runs_that_normal_may_lose_are_findings_under_full(
    recording: Record, tmp_path: Path, seed: int
) -> None:
    normal = recording("normal", 1)

    result = normal.after_power_cuts(tmp_path, states=40, seed=seed, as_under="full")

    assert {finding.verdict for finding in result.findings} == {Verdict.SHORTENED}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_disk_that_ignores_the_syncs_of_one_file_damages_runs(
    suffix: str, recording: Record, tmp_path: Path, seed: int
) -> None:
    """Seen to pass with the syncs: the log without them is otherwise that of the promise above."""
    whole = recording("full", 1)
    name_of = {entry.file: entry.name for entry in whole.log.entries if isinstance(entry, Create)}
    lying = Log()
    lying.entries = [
        entry
        for entry in whole.log.entries
        if not (isinstance(entry, Sync) and name_of[entry.file] == f"recorded.db{suffix}")
    ]

    result = whole._replace(log=lying).after_power_cuts(tmp_path, states=80, seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM task_run_state WHERE type = 'COMPLETED'",
        "DELETE FROM flow_run_state WHERE type = 'PENDING'",
        "UPDATE task_run_state SET data = NULL, data_format = NULL WHERE type = 'COMPLETED'",
        "UPDATE task_run_state SET data = x'7B' WHERE type = 'COMPLETED'",
        "UPDATE task_run_state SET data = x'31' WHERE type = 'COMPLETED'",
        "UPDATE flow_run_state SET name = 'Done' WHERE type = 'COMPLETED'",
        "UPDATE flow_run_state SET timestamp = timestamp + 1 WHERE type = 'COMPLETED'",
        "UPDATE flow_run SET state_type = 'RUNNING'",
        "UPDATE task_run SET run_count = run_count + 1",
        "UPDATE task_run SET total_run_time = total_run_time + 1",
        "UPDATE task_run SET start_time = start_time + 1",
        "UPDATE task_run SET end_time = NULL",
        "UPDATE task_run SET flow_run_id = NULL WHERE task_key LIKE '%stumbling%'",
        "DELETE FROM task_run WHERE task_key LIKE '%section%'",
        "DELETE FROM flow_run WHERE parent_task_run_id IS NOT NULL",
        "PRAGMA user_version = 0",
    ],
)
def test_a_record_that_no_transaction_leaves_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    ledger = Ledger(Log())
    with embedded_orch.open(path):
        Calls(ledger).report(2)
    workload = OrchestratorWorkload.after(ledger)
    connection = apsw.Connection(str(path))
    assert len(workload.held_operations(connection)) > 20

    connection.execute(damage)

    with pytest.raises(TornOperation):
        workload.held_operations(connection)
    connection.close()


def test_a_completed_call_that_runs_again_is_found_out(tmp_path: Path) -> None:
    """As a resume would make it if the result were not used."""
    path = tmp_path / "orch.db"
    ledger = Ledger(Log())
    with embedded_orch.open(path):
        Calls(ledger).report(2)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE task_run SET dynamic_key = dynamic_key || '-other'")
    connection.execute(
        "UPDATE flow_run SET state_type = 'CRASHED' WHERE parent_task_run_id IS NULL"
    )
    connection.close()

    with pytest.raises(TornOperation):
        OrchestratorWorkload.after(ledger).go_on(str(path))


def test_the_command_prints_counts_for_runs_too(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--size 2 --durability normal --states 20 --kills-every 100 --go-on-every 10"

    status = main(arguments.split())

    printed = capsys.readouterr().out
    assert status == 0
    assert "power cuts: 20 states, 0 not allowed, work went on in 2" in printed
    assert "kills: " in printed


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_thousands_of_power_cuts_leave_of_runs_what_the_durability_promises(
    durability: str, threads: int, recording: Record, tmp_path: Path, seed: int
) -> None:
    result = recording(durability, threads).after_power_cuts(tmp_path, states=5000, seed=seed)

    assert result.findings == []


@pytest.mark.soak
@pytest.mark.parametrize("threads", THREADS)
def test_without_syncs_thousands_of_power_cuts_damage_what_runs_wrote(
    threads: int, recording: Record, tmp_path: Path, seed: int
) -> None:
    result = recording("off", threads).after_power_cuts(tmp_path, states=5000, seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


@pytest.mark.soak
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("durability", ["full", "normal", "off"])
def test_every_kill_leaves_all_runs_that_were_acknowledged(
    durability: str, threads: int, recording: Record, tmp_path: Path
) -> None:
    assert recording(durability, threads).after_kills(tmp_path, every=1).findings == []

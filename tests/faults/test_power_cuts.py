"""What SQLite with our settings keeps through a kill and a power cut, and that we would notice.

``pytest tests/faults/test_power_cuts.py --seed 7`` repeats the states of a seed.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import apsw
import pytest

from tests.faults.power_cuts import (
    ALLOWED_AFTER_KILL,
    ALLOWED_AFTER_POWER_CUT,
    History,
    OpenDatabase,
    Survey,
    Verdict,
    killed_states,
    main,
    power_cut_states,
    record,
    survey,
)
from tests.faults.raw_workload import RawWorkload, create_schema, held_operations, write_run
from tests.faults.recording_vfs import Create, Delete, Disk, Log, Sync, Write

NONE: set[int] = set()
DAMAGE = {Verdict.HOLE, Verdict.TORN, Verdict.CORRUPT}


def after_power_cuts(
    log: Log, folder: Path, *, seed: int, durability: str, states: int = 500
) -> Survey:
    result = survey(
        log,
        power_cut_states(log, seed=seed, states=states),
        check=held_operations,
        allowed=ALLOWED_AFTER_POWER_CUT[durability],
        folder=str(folder),
    )
    print(f"durability {durability}, seed {seed}: {result}")
    return result


def after_kills(log: Log, folder: Path) -> Survey:
    result = survey(
        log,
        killed_states(log),
        check=held_operations,
        allowed=ALLOWED_AFTER_KILL,
        folder=str(folder),
    )
    print(result)
    return result


# -- What must hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_cuts_leave_what_the_durability_promises(
    durability: str, tmp_path: Path, seed: int
) -> None:
    log = record(RawWorkload(), durability=durability, folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability=durability, seed=seed)

    assert result.states == 500
    assert result.findings == []


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_cuts_keep_the_promise_to_four_writers_at_once(
    durability: str, tmp_path: Path, seed: int
) -> None:
    workload = RawWorkload(size=60, threads=4)
    log = record(workload, durability=durability, folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability=durability, states=150, seed=seed)

    assert result.findings == []


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_cuts_keep_the_promise_on_a_database_that_is_not_new(
    durability: str, tmp_path: Path, seed: int
) -> None:
    a_database_with(tmp_path / "recorded.db", operations=30)

    def thirty_more(open_database: OpenDatabase, log: Log) -> None:
        connection = open_database()
        for number in range(31, 61):
            log.mark(begun=number)
            with_one_more(connection, number)
            log.mark(acknowledged=number)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    log = record(
        thirty_more,
        durability=durability,
        folder=str(tmp_path),
        held_at_start=frozenset(range(31)),
    )
    result = after_power_cuts(log, tmp_path, durability=durability, states=150, seed=seed)

    assert set(log.initial) == {"recorded.db"}
    assert result.findings == []


def test_a_killed_process_leaves_all_that_was_acknowledged(tmp_path: Path) -> None:
    """With durability off: the others write the same bytes, and more syncs."""
    log = record(RawWorkload(size=60), durability="off", folder=str(tmp_path))

    result = after_kills(log, tmp_path)

    assert result.states > len([e for e in log.entries if isinstance(e, Write)])
    assert result.findings == []


# -- What must be found, or the harness is broken ------------------------------------------------


def test_without_syncs_power_cuts_damage_the_database(tmp_path: Path, seed: int) -> None:
    log = record(RawWorkload(), durability="off", folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability="off", seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


def test_losses_that_normal_may_have_are_findings_under_full(tmp_path: Path, seed: int) -> None:
    log = record(RawWorkload(), durability="normal", folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability="full", states=150, seed=seed)

    assert {finding.verdict for finding in result.findings} == {Verdict.SHORTENED}


@pytest.mark.parametrize(
    ("durability", "suffix"), [("full", "-wal"), ("normal", "-wal"), ("full", ""), ("normal", "")]
)
def test_a_disk_that_ignores_the_syncs_of_one_file_is_found_out(
    durability: str, suffix: str, tmp_path: Path, seed: int
) -> None:
    log = record(RawWorkload(), durability=durability, folder=str(tmp_path))
    name_of = {entry.file: entry.name for entry in log.entries if isinstance(entry, Create)}
    log.entries = [
        entry
        for entry in log.entries
        if not (isinstance(entry, Sync) and name_of[entry.file] == f"recorded.db{suffix}")
    ]

    result = after_power_cuts(log, tmp_path, durability=durability, states=150, seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


def test_a_directory_that_is_never_synced_loses_acknowledged_operations(
    tmp_path: Path, seed: int
) -> None:
    log = record(RawWorkload(size=60), durability="full", folder=str(tmp_path))
    log.entries = [
        Sync(entry.file, directory=False) if isinstance(entry, Sync) else entry
        for entry in log.entries
    ]

    result = after_power_cuts(log, tmp_path, durability="full", states=150, seed=seed)

    assert result.findings != []


# -- The parts of the harness --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marks", "held", "verdict"),
    [
        # "b1" operation 1 begins, "a1" its caller is told that it is done
        ("b1 a1 b2 a2", {1, 2}, Verdict.WHOLE),
        ("b1 a1 b2", {1}, Verdict.WHOLE),
        ("b1 a1 b2", {1, 2}, Verdict.WHOLE),
        ("b1 a1 b2 a2", {1}, Verdict.SHORTENED),
        ("b1 a1 b2 a2", NONE, Verdict.SHORTENED),
        ("b1 a1 b2 a2", {2}, Verdict.HOLE),
        ("b1 a1 b2", {2}, Verdict.HOLE),
        ("b1 b2 a1 a2", {2}, Verdict.SHORTENED),
        ("b1 b2 a2 b3 a3 a1", {2, 3}, Verdict.SHORTENED),
        ("b1 b2 a2 b3 a3 a1", {1, 3}, Verdict.HOLE),
    ],
)
def test_the_verdict_follows_from_what_was_acknowledged_before_what(
    marks: str, held: set[int], verdict: Verdict
) -> None:
    log = a_log_of_marks(marks)

    judged, _ = History(log).judge(len(log.entries), frozenset(held))

    assert judged is verdict


def test_an_operation_held_before_it_began_is_a_mistake_of_the_workload() -> None:
    log = a_log_of_marks("b1 a1 b2 a2")

    with pytest.raises(ValueError, match=r"\[2\]"):
        History(log).judge(2, frozenset({1, 2}))


def test_what_was_synced_survives_and_what_was_not_comes_in_every_form() -> None:
    disk = Disk(Log())
    old, new = b"o" * 2048, b"n" * 1024
    disk.play(Create("db", 0))
    disk.play(Write(0, 0, old))
    disk.play(Sync(0, directory=True))
    disk.play(Write(0, 512, new))

    found = {disk.files_after_power_cut(Random(seed))["db"] for seed in range(1000)}

    both, first, second = ((512, 1536), (512, 1024), (1024, 1536))
    assert found == {
        old,
        *(old[:low] + new[: high - low] + old[high:] for low, high in (both, first, second)),
    }


def test_a_hole_where_bytes_never_arrived_holds_zeros_or_junk() -> None:
    disk = Disk(Log())
    disk.play(Create("db", 0))
    disk.play(Sync(0, directory=True))
    disk.play(Write(0, 0, b"a" * 512))
    disk.play(Write(0, 512, b"b" * 512))

    found = {disk.files_after_power_cut(Random(seed))["db"] for seed in range(200)}
    holes = {files[:512] for files in found if len(files) == 1024 and files[:1] != b"a"}

    assert bytes(512) in holes
    assert len(holes) > 1


def test_a_name_is_durable_only_once_its_directory_was_synced() -> None:
    disk = Disk(Log())
    disk.play(Create("db-journal", 0))
    disk.play(Sync(0, directory=True))
    disk.play(Delete("db-journal", directory=False))

    found = {"db-journal" in disk.files_after_power_cut(Random(seed)) for seed in range(50)}
    disk.play(Delete("db-journal", directory=True))

    assert found == {True, False}
    assert disk.files() == {}


def test_a_file_that_the_record_did_not_see_come_is_refused(tmp_path: Path) -> None:
    def beside_a_stranger(open_database: OpenDatabase, log: Log) -> None:
        a_database_with(Path(open_database.path), operations=1)
        open_database()

    with pytest.raises(ValueError, match=r"recorded\.db was made by someone"):
        record(beside_a_stranger, durability="full", folder=str(tmp_path))


def test_one_state_of_a_seed_can_be_had_alone(tmp_path: Path) -> None:
    log = record(RawWorkload(size=10), durability="normal", folder=str(tmp_path))

    states = {state.number: state for state in power_cut_states(log, seed=5, states=40)}
    again = list(power_cut_states(log, seed=5, states=40, only=17))

    assert sorted(states) == list(range(40))
    assert again == [states[17]]


def test_the_command_prints_counts_and_says_whether_the_promise_was_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = "--workload raw --size 20 --durability full --states 20 --seed 3"

    status = main(arguments.split())

    printed = capsys.readouterr().out
    assert status == 0
    assert "seed 3, durability full" in printed
    assert "power cuts: 20 states, 0 not allowed" in printed


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_thousands_of_power_cuts_leave_what_the_durability_promises(
    durability: str, threads: int, tmp_path: Path, seed: int
) -> None:
    workload = RawWorkload(size=400, threads=threads)
    log = record(workload, durability=durability, folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability=durability, states=5000, seed=seed)

    assert result.findings == []


@pytest.mark.soak
def test_without_syncs_thousands_of_power_cuts_find_damage(tmp_path: Path, seed: int) -> None:
    log = record(RawWorkload(size=400), durability="off", folder=str(tmp_path))

    result = after_power_cuts(log, tmp_path, durability="off", states=5000, seed=seed)

    assert DAMAGE & {finding.verdict for finding in result.findings}


@pytest.mark.soak
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("durability", ["full", "normal", "off"])
def test_every_kill_of_a_long_workload_leaves_all_that_was_acknowledged(
    durability: str, threads: int, tmp_path: Path
) -> None:
    workload = RawWorkload(size=250, threads=threads)
    log = record(workload, durability=durability, folder=str(tmp_path))

    assert after_kills(log, tmp_path).findings == []


# -- Builders ------------------------------------------------------------------------------------


def a_log_of_marks(marks: str) -> Log:
    log = Log()
    for mark in marks.split():
        number = int(mark[1:])
        if mark.startswith("b"):
            log.mark(begun=number)
        else:
            log.mark(acknowledged=number)
    return log


def with_one_more(connection: apsw.Connection, number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    write_run(connection, number)
    connection.execute("COMMIT")


def a_database_with(path: Path, *, operations: int) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    create_schema(connection)
    connection.execute("COMMIT")
    for number in range(1, operations + 1):
        with_one_more(connection, number)
    connection.close()

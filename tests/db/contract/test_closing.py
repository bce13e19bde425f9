from __future__ import annotations

import pytest

from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.session import open_session
from embedded_orch.errors import DatabaseClosed, WouldDeadlock
from embedded_orch.process import Process
from tests.db.contract.probe import Background, Gate, Probe, numbers_in


def test_closing_commits_what_was_announced(url: str, process: Process) -> None:
    if url == ":memory:":
        pytest.skip("a database in memory ends with its connection")
    databases = OpenDatabases(process)
    first = databases.open(url, {})
    probe = Probe(first.database, process)
    for number in range(300):
        probe.database.announce(probe.insert(number))
    databases.close(first)

    second = databases.open(url, {})
    second.database.catalog.update(probe.database.catalog)  # type: ignore[attr-defined]

    assert second.database.read(numbers_in) == list(range(300))
    databases.close(second)


def test_a_closed_database_says_so_and_closing_twice_is_fine(probe: Probe) -> None:
    database = probe.database
    database.close()
    database.close()

    for call in (
        lambda: database.read(numbers_in),
        lambda: database.write(probe.insert(1)),
        lambda: database.announce(probe.insert(1)),
        database.begin,
        lambda: database.begin(read_only=True),
    ):
        with pytest.raises(DatabaseClosed, match="is closed; open it again"):
            call()
    assert repr(database).endswith(" closed>")


def test_closing_waits_for_a_write_of_another_thread(probe: Probe) -> None:
    gate = Gate()
    writer = Background(lambda: probe.database.write(gate.before(probe.insert(1))))
    gate.reached.wait()
    gate.open_soon()

    probe.database.close()

    assert writer.result() == 1


def test_closing_waits_for_a_read_of_another_thread(probe: Probe) -> None:
    """Seen to fail on a SQLite file, whose connection was closed under the read."""
    gate = Gate()
    probe.database.write(probe.insert(1))
    reader = Background(lambda: probe.database.read(gate.before(numbers_in)))
    gate.reached.wait()
    gate.open_soon(0.5)

    probe.database.close()

    assert reader.result() == [1]


def test_a_session_that_is_open_when_its_thread_closes_the_database(probe: Probe) -> None:
    """Waiting for it would never end: the close is refused, and the session goes on."""
    with open_session(
        probe.database, begin_transaction=True, with_for_update=False, read_only=False
    ):
        probe.database.write(probe.insert(1))
        with pytest.raises(WouldDeadlock):
            probe.database.close()

    assert probe.numbers() == [1]

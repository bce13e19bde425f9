"""The readers of a file: lent to one thread each, made up to a limit, and waited for beyond it."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors
from embedded_orch.db.port import Transaction
from embedded_orch.db.sqlite.database import SQLiteDatabase
from embedded_orch.db.sqlite.readers import Readers
from embedded_orch.db.sqlite.transaction import SQLiteTransaction
from tests.db.contract.probe import Background
from tests.engine.waiting import passed, until


def readers_of(orch: Orchestrator) -> Readers:
    assert isinstance(orch.database, SQLiteDatabase)
    readers = orch.database._readers
    assert readers is not None
    return readers


def one(tx: Transaction) -> object:
    return tx.rows("migration.applied")


class Lasting:
    """A read that lasts until it is told to end."""

    def __init__(self, orch: Orchestrator) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self._read = Background(lambda: orch.database.read(self._last))
        passed(self.has_begun)

    def _last(self, tx: Transaction) -> object:
        self.has_begun.set()
        passed(self.may_end)
        return one(tx)

    def end(self) -> None:
        self.may_end.set()
        self._read.result()


def test_a_read_beyond_the_limit_has_the_reader_that_is_given_back(tmp_path: Path) -> None:
    with embedded_orch.open(tmp_path / "o.db", max_readers=1) as orch:
        lasting = Lasting(orch)
        waiting = Background(lambda: orch.database.read(one))
        until(lambda: readers_of(orch)._waiting, "the second read waits")

        lasting.end()

        assert waiting.result()
        assert len(readers_of(orch).connections) == 1


def test_a_read_that_waits_for_too_long_says_what_to_do(tmp_path: Path) -> None:
    with embedded_orch.open(tmp_path / "o.db", max_readers=1, busy_timeout_seconds=0.05) as orch:
        lasting = Lasting(orch)

        with pytest.raises(errors.DatabaseBusy, match="larger max_readers"):
            orch.database.read(one)

        lasting.end()
        assert orch.database.read(one)


def test_a_reader_is_made_only_where_none_is_idle(tmp_path: Path) -> None:
    with embedded_orch.open(tmp_path / "o.db", max_readers=3) as orch:
        for _ in range(5):
            orch.database.read(one)
        assert len(readers_of(orch).connections) == 1

        lasting = [Lasting(orch), Lasting(orch)]
        assert len(readers_of(orch).connections) == 2
        for each in lasting:
            each.end()


def test_many_threads_share_no_more_than_the_limit(tmp_path: Path) -> None:
    with embedded_orch.open(tmp_path / "o.db", max_readers=2) as orch:

        def read_often() -> None:
            for _ in range(100):
                assert orch.database.read(one)

        for each in [Background(read_often) for _ in range(8)]:
            each.result()

        assert len(readers_of(orch).connections) <= 2


def test_a_read_that_waits_is_told_when_its_database_is_closed(tmp_path: Path) -> None:
    orch = embedded_orch.open(tmp_path / "o.db", max_readers=1)
    lasting = Lasting(orch)
    readers = readers_of(orch)
    waiting = Background(lambda: readers.read(one))
    until(lambda: readers._waiting, "the second read waits")

    closing = Background(orch.close)
    with pytest.raises(errors.DatabaseClosed, match="open it again"):
        waiting.result()
    assert closing.is_alive()

    lasting.end()
    closing.result()
    with pytest.raises(errors.DatabaseClosed):
        readers.read(one)


def test_a_read_that_was_interrupted_on_a_row_keeps_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: as long as the error was there, the next read was told what was true before."""

    def value_of(name: str) -> object:
        return orch.database.read_beside(lambda tx: tx.rows("variable.by_name", name=name))

    with embedded_orch.open(tmp_path / "o.db", max_readers=1) as orch:
        orch.variables.set("first", 1)
        assert value_of("first")
        with monkeypatch.context() as patched:
            patched.setattr(
                SQLiteTransaction, "_learn_columns", Mock(side_effect=KeyboardInterrupt)
            )
            patched.setattr(readers_of(orch)._catalog["variable.by_name"], "decoders", None)
            with pytest.raises(KeyboardInterrupt) as interrupted:
                value_of("first")

        orch.variables.set("second", 2)

        assert value_of("second")
        assert interrupted.tb is not None

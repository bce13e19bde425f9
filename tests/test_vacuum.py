"""``orch.vacuum()``: the room of removed rows goes back to the file system."""

from __future__ import annotations

import sqlite3
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow
from embedded_orch.engine.removing import size_of
from tests.opened import opened
from tests.postgres_server import PostgresServer

# Results that would be files beside the database.
INSIDE: dict[str, Any] = {"inline_result_bytes": 10_000_000}


@flow
def large(size: int = 500_000) -> str:
    return "x" * size


def made_by_hand(path: Path) -> None:
    """A file of ours as it would be without ``auto_vacuum``, from another program's hand."""
    embedded_orch.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("pragma auto_vacuum = none")
    connection.execute("vacuum")
    connection.close()


def auto_vacuum(orch: Orchestrator) -> object:
    with orch.session() as session:
        return session.execute("pragma auto_vacuum").scalar()


class TestVacuum:
    def test_room_of_removed_runs_is_given_back(self, url: str) -> None:
        with opened(url, retention=False, **INSIDE) as orch:
            for _ in range(4):
                large()
            orch.prune(timedelta(0))
            _, free = orch.database.read(size_of)
            assert (free > 1_000_000) is (orch.database.dialect == "sqlite")

            orch.vacuum()

            used, free = orch.database.read(size_of)
            assert free == 0
            assert orch.database.dialect != "sqlite" or used < 1_000_000

    def test_the_file_itself_gets_shorter_while_it_is_open(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path), retention=False, **INSIDE) as orch:
            for _ in range(4):
                large()
            orch.prune(timedelta(0))
            orch.vacuum()

            assert path.stat().st_size < 1_000_000
            assert (tmp_path / "orch.db-wal").stat().st_size == 0
            assert orch.sql("pragma integrity_check").scalar() == "ok"
            assert large(3) == "xxx"

    def test_a_file_that_cannot_give_room_back_is_rebuilt_once(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        made_by_hand(path)
        with opened(str(path), retention=False, **INSIDE) as orch:
            assert auto_vacuum(orch) == 0
            large()
            large()
            orch.prune(timedelta(0))

            orch.vacuum()

            assert auto_vacuum(orch) == 2
            assert path.stat().st_size < 500_000
            version = orch.sql("pragma user_version").scalar()
            assert version >= 1
            large()
            orch.prune(timedelta(0))
            orch.vacuum()
            assert orch.sql("pragma freelist_count").scalar() == 0

    def test_one_that_is_rebuilt_has_all_its_rows_for_those_who_read_meanwhile(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "orch.db"
        made_by_hand(path)
        with opened(str(path), retention=False, **INSIDE) as orch:
            for _ in range(20):
                large(50_000)
            is_over = threading.Event()
            found: set[int] = set()
            failed: list[BaseException] = []

            def read() -> None:
                try:
                    while not is_over.is_set():
                        found.add(orch.flow_runs.count())
                except BaseException as error:
                    failed.append(error)

            reader = threading.Thread(target=read)
            reader.start()
            try:
                orch.vacuum()
            finally:
                is_over.set()
                reader.join(60)

            assert failed == []
            assert found <= {20}
            assert orch.flow_runs.count() == 20

    def test_it_is_no_part_of_a_transaction(self, url: str) -> None:
        with (
            opened(url) as orch,
            orch.session(begin_transaction=True),
            pytest.raises(errors.WouldDeadlock, match="vacuum cannot be part"),
        ):
            orch.vacuum()

    def test_a_server_counts_what_it_holds(self, postgres_server: PostgresServer) -> None:
        with opened(postgres_server.new_database()) as orch:
            large(3)
            orch.vacuum()

            with orch.session() as session:
                vacuumed = session.execute(
                    "select count(*) from pg_class where relname = 'flow_run' and reltuples = 1"
                )
            assert vacuumed.scalar() == 1
            with orch.session() as session:
                assert session.execute("show statement_timeout").scalar() != "0"

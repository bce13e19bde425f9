"""The log is bounded while no read lasts, and one that lasts is named."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded_orch import Orchestrator, flow
from embedded_orch.db.sqlite import long_reads
from tests.opened import opened
from tests.programs import PATIENCE, environment

pytestmark = pytest.mark.slow

PAGES = 50
PAGE_BYTES = 4096
MOST_BYTES = 20 * PAGES * PAGE_BYTES
"""What a log may come to while reads begin and end: some checkpoints' worth, and their patience."""


@flow
def large() -> str:
    return "x" * 20_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orch.db"


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def write_much(orch: Orchestrator, path: Path, *, times: int = 60) -> int:
    """Write some megabytes; the longest that the log was."""
    longest = 0
    for _ in range(times):
        with orch.session(begin_transaction=True) as session:
            session.execute("create table if not exists ballast (data blob) strict")
            session.execute("insert into ballast values (randomblob(100000))")
        longest = max(longest, log_bytes(path))
    return longest


class TestBounded:
    def test_reads_that_begin_and_end_keep_no_log_from_being_copied(self, path: Path) -> None:
        """Four threads read without a pause, so that there is a snapshot at any time."""
        with opened(str(path), checkpoint_pages=PAGES) as orch:
            large()
            is_over = threading.Event()
            failed: list[BaseException] = []

            def read() -> None:
                try:
                    while not is_over.is_set():
                        orch.sql("select count(*) from flow_runs").scalar()
                except BaseException as error:
                    failed.append(error)

            threads = [threading.Thread(target=read) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                longest = write_much(orch, path)
            finally:
                is_over.set()
                for thread in threads:
                    thread.join(PATIENCE)

            assert failed == []
            assert longest < MOST_BYTES

    def test_after_a_long_read_the_log_is_copied_again(self, path: Path) -> None:
        with opened(str(path), checkpoint_pages=PAGES) as orch:
            with orch.session(begin_transaction=True, read_only=True) as session:
                session.execute("select count(*) from flow_run")
                other = threading.Thread(target=write_much, args=(orch, path))
                other.start()
                other.join(PATIENCE)
                grown = log_bytes(path)
            assert grown > MOST_BYTES

            # The log begins anew within these, so that it grows no more.
            write_much(orch, path)

            assert log_bytes(path) <= grown + 3 * PAGES * PAGE_BYTES


class TestNamed:
    @pytest.fixture(autouse=True)
    def every_read_is_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(long_reads, "LONG_SECONDS", 0.0)

    def warnings(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "embedded_orch.db" and "its log has grown" in record.getMessage()
        ]

    def test_a_session_is_named_by_the_line_that_opened_it_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(str(path), checkpoint_pages=PAGES) as orch, caplog.at_level(logging.WARNING):
            with orch.session(begin_transaction=True, read_only=True) as session:
                session.execute("select count(*) from flow_run")
                other = threading.Thread(target=write_much, args=(orch, path))
                other.start()
                other.join(PATIENCE)

        (said,) = self.warnings(caplog)
        assert f"a read-only session, opened at {__file__}:" in said
        assert "in thread MainThread" in said

    def test_a_query_is_named_by_its_text(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        endless = (
            "with recursive n (i) as (select 1 union all select i + 1 from n) "
            "select sum(i) from n, flow_run"
        )
        with opened(str(path), checkpoint_pages=PAGES) as orch, caplog.at_level(logging.WARNING):
            large()
            is_over = threading.Event()

            def query() -> None:
                try:
                    orch.sql(endless, timeout_seconds=PATIENCE)
                except Exception:
                    is_over.set()

            thread = threading.Thread(target=query, name="asks")
            thread.start()
            while not self.warnings(caplog) and not is_over.is_set():
                write_much(orch, path, times=10)
            for connection in orch.database._readers.connections:  # type: ignore[attr-defined]
                connection.interrupt()
            thread.join(PATIENCE)

        assert "orch.sql('with recursive n (i) as" in self.warnings(caplog)[0]
        assert "in thread asks" in self.warnings(caplog)[0]

    @pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="asks Linux's /proc")
    def test_another_process_is_named_by_its_pid(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(str(path), checkpoint_pages=PAGES) as orch, caplog.at_level(logging.WARNING):
            large()
            with reading(path) as pid:
                write_much(orch, path)
            large()

        (said,) = self.warnings(caplog)
        assert f"process {pid} (" in said
        assert "READER" in said

    def test_reads_that_end_are_not_named(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(long_reads, "LONG_SECONDS", 3600.0)
        with opened(str(path), checkpoint_pages=PAGES) as orch, caplog.at_level(logging.WARNING):
            with orch.session(begin_transaction=True, read_only=True) as session:
                session.execute("select count(*) from flow_run")
                other = threading.Thread(target=write_much, args=(orch, path))
                other.start()
                other.join(PATIENCE)

        assert self.warnings(caplog) == []


READER = """
# READER
import sys
import embedded_orch

with embedded_orch.open(sys.argv[1], retention=False) as orch:
    with orch.session(begin_transaction=True, read_only=True) as session:
        session.execute("select count(*) from flow_run")
        print("reads", flush=True)
        sys.stdin.read()
"""


@contextmanager
def reading(path: Path) -> Generator[int]:
    """The pid of another process that has a snapshot, for the length of a block."""
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "reads\n"
        yield process.pid
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(PATIENCE)

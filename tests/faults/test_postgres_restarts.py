"""A server that is stopped at once and started again, under runs and under their recovery."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import embedded_orch
from tests import crashing
from tests.faults.invariants import problems, unburied
from tests.faults.postgres_errand import prepare, problems_on_record, run_errand
from tests.faults.postgres_proxy import Fault, PostgresProxy, Where, at_statement, calling_at
from tests.faults.run_records import asking_bare
from tests.postgres_server import PostgresServer

_numbers = count(100_001)
_copies = count(1)
_TASKS = 5
_KILLED_IN = 3
# A session that is opened and looked at, before anything is recovered.
_OPENED_BY = 4


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    server = PostgresServer.create()
    yield server
    server.stop()


def restart(server: PostgresServer) -> None:
    server.stop_immediate()
    server.start()


# -- while runs go on ------------------------------------------------------------------------------


def restart_under_errands(
    server: PostgresServer, *, threads: int, errands: int, times: int
) -> None:
    """Run errands in threads, and restart the server meanwhile."""
    url = server.new_database()
    done: list[int] = []
    raised: list[BaseException] = []
    begun = threading.Semaphore(0)

    def work() -> None:
        try:
            for _ in range(errands):
                number = next(_numbers)
                begun.release()
                run_errand(number)
                done.append(number)
        except BaseException as error:
            raised.append(error)

    with embedded_orch.open(url) as orch:
        prepare(orch)
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for _ in range(times):
            assert begun.acquire(timeout=60)
            restart(server)
        for worker in workers:
            worker.join()

    assert raised == []
    assert len(done) == threads * errands
    assert problems_on_record(url, done) == []


@pytest.mark.slow
def test_runs_go_on_when_the_server_is_restarted(own_server: PostgresServer) -> None:
    restart_under_errands(own_server, threads=2, errands=2, times=2)


@pytest.mark.soak
def test_runs_go_on_when_the_server_is_restarted_again_and_again(
    own_server: PostgresServer,
) -> None:
    restart_under_errands(own_server, threads=4, errands=20, times=25)


# -- while they are recovered ----------------------------------------------------------------------


class Killed:
    """A database whose process was killed in the middle of a flow, to be copied."""

    def __init__(self, server: PostgresServer, trace: Path) -> None:
        self._server = server
        self._url = server.new_database()
        self.calls = Counter[str]()
        point = f"in work {_KILLED_IN}"
        with crashing.stopped_at(point, self._url, "in_sequence", _TASKS, trace=trace) as process:
            process.kill()
        self.calls = calls_in(trace)

    def copy(self) -> str:
        """The URL of a copy of its own."""
        name = f"{self._url.split('/')[3].split('?', maxsplit=1)[0]}_copy_{next(_copies)}"
        template = name.rpartition("_copy_")[0]
        ends = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s"
        self._server.administration.execute(ends, [template])
        self._server.administration.execute(f"create database {name} template {template}".encode())
        return self._server.url(name)


@pytest.fixture(scope="module")
def killed(
    own_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Killed]:
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        # One home for the process that is killed and for ours, which asks whether it is dead.
        patch.setenv("EMBEDDED_ORCH_HOME", str(folder))
        yield Killed(own_server, folder / "trace")


def calls_in(trace: Path) -> Counter[str]:
    return Counter(trace.read_text().splitlines()) if trace.exists() else Counter()


def recover(killed: Killed, fault: Fault, trace: Path) -> bool:
    """Open a copy with a fault on the way, and resume the run; whether the fault came."""
    url = killed.copy()
    with PostgresProxy(url, fault=fault) as proxy:
        with embedded_orch.open(proxy.url) as orch:
            [run] = orch.flow_runs.find()
            assert [state.name for state in run.history] == ["Pending", "Running", "Crashed"]
            value = crashing.in_sequence.resume(run.id)
        assert value == [{number: (number, number * 10)} for number in range(_TASKS)]
        has_struck = proxy.has_struck.is_set()
    assert killed.calls == {f"work {number}": 1 for number in range(_KILLED_IN + 1)}
    assert calls_in(trace) == {f"work {number}": 1 for number in range(_KILLED_IN, _TASKS)}
    with asking_bare(url) as asked:
        assert [*problems(asked), *unburied(asked)] == []
    return has_struck


@pytest.mark.slow
@pytest.mark.parametrize("later", [5, 10, 15])
def test_a_recovery_goes_on_when_the_server_is_restarted(
    own_server: PostgresServer,
    killed: Killed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    later: int,
) -> None:
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    fault = calling_at(_OPENED_BY + later, lambda _: restart(own_server))

    assert recover(killed, fault, tmp_path / "trace")


@pytest.mark.parametrize("where", list(Where), ids=lambda where: where.name)
def test_a_recovery_goes_on_when_its_connection_is_cut(
    killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    for later in (1, 6, 13):
        trace = tmp_path / f"trace {later}"
        monkeypatch.setenv("TRACE", str(trace))
        assert recover(killed, at_statement(_OPENED_BY + later, where), trace)


@pytest.mark.soak
@pytest.mark.parametrize("where", list(Where), ids=lambda where: where.name)
def test_a_recovery_goes_on_when_its_connection_is_cut_at_any_statement(
    killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    later = 0
    while True:
        trace = tmp_path / f"trace {later}"
        monkeypatch.setenv("TRACE", str(trace))
        if not recover(killed, at_statement(_OPENED_BY + later, where), trace):
            break
        later += 1

    assert later > 30


@pytest.mark.soak
def test_a_recovery_goes_on_when_the_server_is_restarted_at_any_statement(
    own_server: PostgresServer, killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0
    while True:
        trace = tmp_path / f"trace {later}"
        monkeypatch.setenv("TRACE", str(trace))
        fault = calling_at(_OPENED_BY + later, lambda _: restart(own_server))
        if not recover(killed, fault, trace):
            break
        later += 2

    assert later > 30

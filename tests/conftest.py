"""The backends that every test of the data layer runs on, and what opens them."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch.db.opening import OpenDatabases
from embedded_orch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch.db.port import Database

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("file", "memory", "postgres")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--seed N`` repeats the faults that a run of the tests has drawn."""
    parser.addoption("--seed", type=int, help="what faults are drawn by; told at the beginning")
    parser.addoption(
        "--backend", choices=BACKENDS, help="run what runs on several databases on this one alone"
    )
    parser.addoption(
        "--machines", type=int, default=100_000, help="how many machines `make soak` simulates"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have Ctrl-C mean something, and settle the seed before pytest-xdist hands the options on.

    The same each time in `make test`, so that it answers alike; `make soak` looks for what is new.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores it, and so would every process that a test starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        is_soak = config.option.markexpr == "soak"
        config.option.seed = int.from_bytes(os.urandom(4), "big") if is_soak else 1


def pytest_collection(session: pytest.Session) -> None:
    """Have each process import other tests first: the rest are compiled by then.

    In a new checkout each would else compile all of them, which is most of a minute's work.
    """
    worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    modules = [module for argument in session.config.args for module in _modules_of(argument)]
    first = len(modules) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for module in modules[first:] + modules[:first]:
        # What is wrong with it is told when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(module)


def _modules_of(argument: str) -> list[str]:
    """The names of the test modules that an argument of the command line is about."""
    path = ROOT / argument.partition("::")[0]
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    found = [file.relative_to(ROOT).with_suffix("") for file in files if ROOT in file.parents]
    return [".".join(each.parts) for each in found]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the databases that were not asked for."""
    if config.option.backend is None:
        return
    others = set(BACKENDS) - {config.option.backend}
    left_out = [item for item in items if not others.isdisjoint(_backends_of(item))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _backends_of(item: pytest.Item) -> set[str]:
    """What is said of the database in the parameters and fixtures of a test."""
    called = getattr(item, "callspec", None)
    named = (
        {value for value in called.params.values() if isinstance(value, str)} if called else set()
    )
    return named | (
        {"postgres"} if "postgres_server" in getattr(item, "fixturenames", ()) else set()
    )


def pytest_collection_finish() -> None:
    """Take pytest's own thousands of objects out of every later collection of garbage."""
    # What is frozen is no referrer any more, and hypothesis looks for one of trio's random numbers
    # when it is first imported, which it is at the end of a run by its plugin.
    import hypothesis

    assert hypothesis.__version__
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    """Told at the beginning of every run."""
    return f"faults are drawn by --seed {config.option.seed}"


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """What faults are drawn by."""
    return int(pytestconfig.option.seed)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each backend in turn."""
    if request.param == "memory":
        return ":memory:"
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    server = request.getfixturevalue("postgres_server")
    return str(server.emptied_database())


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test opens the default database of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def only_new_garbage() -> None:
    """What is there by now is left out when the tests of a module collect garbage.

    By the middle of a run that is so much, and so little of it theirs, that collecting is most of
    what such a test costs.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def process() -> Process:
    """This process, with its real clock."""
    return Process()


@pytest.fixture
def database(url: str, process: Process) -> Iterator[Database]:
    """The data layer alone, open on each backend in turn."""
    opened = OpenDatabases(process)
    shared = opened.open(url, {"busy_timeout_seconds": 5.0} if "postgres" not in url else {})
    yield shared.database
    opened.close(shared)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[object]:
    """One real Postgres for the whole run."""
    from tests.postgres_server import running_server

    with running_server() as server:
        yield server

"""Opening, sharing, choosing and closing orchestrators."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import embedded_orch
from embedded_orch import errors, flow, task
from embedded_orch.orchestrator import registry
from embedded_orch.store.flows import ensure_flow
from tests.engine.waiting import until
from tests.opened import opened
from tests.programs import run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator

LOOPS = ("asyncio", "trio")


@flow
def report() -> int:
    return one() + one.submit().result()


@task
def one() -> int:
    return 1


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    registry.close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "orch.db"


def runs_in(path: Path | str) -> int:
    with embedded_orch.open(path) as orch:
        return orch.flow_runs.count()


# -- the default database ------------------------------------------------------------------------


def without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBEDDED_ORCH_URL", "EMBEDDED_ORCH_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("EMBEDDED_ORCH_URL", "{folder}/named.db", "named.db"),
        ("EMBEDDED_ORCH_URL", "sqlite:///{folder}/named.db", "named.db"),
        ("EMBEDDED_ORCH_HOME", "{folder}/home", "home/orch.db"),
        ("XDG_DATA_HOME", "{folder}/share", "share/embedded_orch/orch.db"),
        ("HOME", "{folder}/me", "me/.local/share/embedded_orch/orch.db"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="where the default database lies on Linux")
def test_flow_without_an_orchestrator_uses_the_default_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    without_names(monkeypatch)
    monkeypatch.setenv(variable, value.format(folder=tmp_path))

    assert report() == 2
    assert report() == 2

    registry.close_all()
    assert (tmp_path / expected).exists()
    assert runs_in(tmp_path / expected) == 2


def test_url_names_the_default_database_before_the_home_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_URL", str(tmp_path / "a.db"))
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))

    report()

    assert not (tmp_path / "home").exists()


def test_default_database_is_not_opened_while_another_one_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    orch = embedded_orch.open(tmp_path / "mine.db")

    report()

    assert orch.flow_runs.count() == 1
    assert not (tmp_path / "home").exists()


def test_orchestrator_that_is_opened_comes_before_the_default_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    report()
    orch = embedded_orch.open(tmp_path / "mine.db")
    report()
    orch.close()
    report()

    registry.close_all()
    assert runs_in(tmp_path / "home" / "orch.db") == 2
    assert runs_in(tmp_path / "mine.db") == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of files as POSIX has them")
def test_files_are_private_and_named_after_the_database(path: Path) -> None:
    before = os.umask(0)
    try:
        with embedded_orch.open(path):
            report()
            found = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert set(found.values()) == {0o600}
    assert all(name.startswith("orch.db") for name in found)
    assert len(found) > 1


# -- which one is meant --------------------------------------------------------------------------


def test_flow_inside_the_block_uses_its_orchestrator(url: str) -> None:
    with opened(url) as orch:
        report()

        assert orch.flow_runs.count(state_type="COMPLETED") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_flow_inside_an_async_block_uses_its_orchestrator(path: Path, loop: str) -> None:
    async def main() -> int:
        async with embedded_orch.open(path) as orch:
            await anyio.to_thread.run_sync(report)
            report()
            return orch.flow_runs.count()

    assert anyio.run(main, backend=loop) == 2
    assert registry._open == []


def test_orchestrator_opened_by_hand_is_used_until_it_is_closed(path: Path) -> None:
    orch = embedded_orch.open(path)

    report()

    assert orch.flow_runs.count() == 1
    orch.close()
    assert orch.is_closed


def in_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises in a plain thread, which inherits no context."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(work())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    [answer] = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_thread_started_inside_the_block_uses_its_orchestrator(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        assert in_thread(report) == 2

        assert orch.flow_runs.count() == 1


def test_innermost_block_is_meant(tmp_path: Path) -> None:
    with embedded_orch.open(tmp_path / "a.db") as a:
        with embedded_orch.open(tmp_path / "b.db") as b:
            report()
            assert (a.flow_runs.count(), b.flow_runs.count()) == (0, 1)
        report()
        assert a.flow_runs.count() == 1


def test_tasks_of_a_loop_may_each_have_a_block_of_their_own(tmp_path: Path) -> None:
    both = anyio.Event

    async def work(name: str, mine: anyio.Event, other: anyio.Event) -> int:
        async with embedded_orch.open(tmp_path / name) as orch:
            mine.set()
            await other.wait()
            report()
            return orch.flow_runs.count()

    async def main() -> list[int]:
        a, b = both(), both()
        return await asyncio.gather(work("a.db", a, b), work("b.db", b, a))

    assert asyncio.run(main()) == [1, 1]


def test_call_that_could_mean_two_orchestrators_is_refused(tmp_path: Path) -> None:
    a = embedded_orch.open(tmp_path / "a.db")
    b = embedded_orch.open(tmp_path / "b.db")

    with pytest.raises(errors.AmbiguousOrchestrator, match=r"a\.db.*b\.db"):
        report()
    with pytest.raises(errors.AmbiguousOrchestrator):
        one()
    with a:
        report()
    assert report() == 2
    assert b.flow_runs.count() == 1


def test_thread_that_could_mean_two_orchestrators_is_refused(tmp_path: Path) -> None:
    with (
        embedded_orch.open(tmp_path / "a.db"),
        embedded_orch.open(tmp_path / "b.db"),
        pytest.raises(errors.AmbiguousOrchestrator),
    ):
        in_thread(report)


def test_two_orchestrators_on_one_database_are_not_two_meanings(path: Path) -> None:
    first, second = embedded_orch.open(path), embedded_orch.open(path)

    report()

    assert first.flow_runs.count() == second.flow_runs.count() == 1


def test_two_databases_in_memory_are_two(path: Path) -> None:
    with embedded_orch.open(":memory:") as first:
        report()
        with embedded_orch.open(":memory:") as second:
            assert second.flow_runs.count() == 0
        assert first.flow_runs.count() == 1


# -- one file, several times ---------------------------------------------------------------------


def as_url(path: Path) -> str:
    return f"sqlite:///{path}"


def as_relative(path: Path) -> str:
    return os.path.relpath(path)


def as_detour(path: Path) -> str:
    return f"{path.parent}/../{path.parent.name}/{path.name}"


def as_symlink(path: Path) -> str:
    link = path.parent.parent / "link.db"
    link.symlink_to(path)
    return str(link)


def as_linked_folder(path: Path) -> str:
    link = path.parent.parent / "folder"
    link.symlink_to(path.parent)
    return str(link / path.name)


def as_hard_link(path: Path) -> str:
    link = path.parent.parent / "link.db"
    os.link(path, link)
    return str(link)


@pytest.mark.parametrize(
    "name", [str, as_url, as_relative, as_detour, as_symlink, as_linked_folder, as_hard_link]
)
def test_file_that_is_open_already_is_shared(path: Path, name: Callable[[Path], str]) -> None:
    with embedded_orch.open(path) as first:
        report()
        second = embedded_orch.open(name(path))

        assert second.database is first.database
        assert second.flow_runs.count() == 1
        second.close()
        assert report() == 2


def test_core_is_closed_with_its_last_orchestrator(path: Path) -> None:
    first, second = embedded_orch.open(path), embedded_orch.open(path)
    database = first.database

    first.close()
    assert second.flow_runs.count() == 0
    second.close()

    with pytest.raises(errors.DatabaseClosed):
        database.read(lambda tx: None)
    assert embedded_orch.open(path).database is not database


def test_other_settings_than_it_is_open_with_are_refused(path: Path) -> None:
    first = embedded_orch.open(path, durability="full", max_readers=3)

    with pytest.raises(errors.ConfigurationError, match="durability='full'"):
        embedded_orch.open(path, durability="normal")
    same = embedded_orch.open(path, max_readers=3)

    assert same.database is first.database


def test_unknown_setting_is_refused_and_opens_nothing(path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="no_such_setting"):
        embedded_orch.open(path, no_such_setting=1)

    assert registry._open == []
    assert not path.exists()


# -- closing -------------------------------------------------------------------------------------

USES: list[Callable[[Orchestrator], object]] = [
    lambda orch: orch.flows,
    lambda orch: orch.flow_runs,
    lambda orch: orch.task_runs,
    lambda orch: orch.store,
    lambda orch: orch.sql("select 1"),
    lambda orch: orch.backup("/nowhere/copy.db"),
    lambda orch: orch.session().__enter__(),
    lambda orch: asyncio.run(orch.session_context().__aenter__()),
    lambda orch: orch.resume_crashed(),
    lambda orch: orch.__enter__(),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("is_shared", [False, True])
def test_closed_orchestrator_refuses_every_use(
    path: Path, use: Callable[[Orchestrator], object], is_shared: bool
) -> None:
    orch = embedded_orch.open(path)
    if is_shared:
        embedded_orch.open(path)
    orch.close()

    with pytest.raises(errors.DatabaseClosed):
        use(orch)


def test_flow_in_the_block_of_a_closed_orchestrator_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seen to fail when the default database was taken instead, and written to."""
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))

    with embedded_orch.open(path) as orch:
        orch.close()
        with pytest.raises(errors.DatabaseClosed, match="closed"):
            report()

    assert not (tmp_path / "home").exists()


def test_run_whose_orchestrator_is_closed_under_it_is_crashed(path: Path) -> None:
    orch = embedded_orch.open(path)

    @flow
    def closing() -> None:
        orch.close()
        one()

    with pytest.raises(errors.DatabaseClosed):
        closing()

    with embedded_orch.open(path) as again:
        [run] = again.flow_runs.find()
        assert run.state is not None
        assert (run.state.name, run.state.message) == (
            "Crashed",
            "the orchestrator was closed while it ran",
        )


def test_closing_twice_is_closing_once(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        orch.close()
        orch.close()
    orch.close()

    assert "closed" in repr(orch)


def test_block_inside_a_block_of_the_same_orchestrator_does_not_close_it(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        with orch:
            report()
        report()
        assert orch.flow_runs.count() == 2
    assert orch.is_closed


def test_block_that_raises_closes_its_orchestrator(path: Path) -> None:
    with pytest.raises(ValueError), embedded_orch.open(path) as orch:
        raise ValueError

    assert orch.is_closed
    assert registry._open == []


def test_threads_may_close_at_once(path: Path) -> None:
    orch = embedded_orch.open(path)
    threads = [threading.Thread(target=orch.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert orch.is_closed
    assert embedded_orch.open(path).flow_runs.count() == 0


def test_announced_writes_are_committed_before_it_is_closed(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        id = registry.process.new_id()
        orch.database.announce(lambda tx: ensure_flow(tx, id=id, name="announced", now=1))

    with embedded_orch.open(path) as orch:
        assert [each.name for each in orch.flows.find()] == ["announced"]


# -- the end of the interpreter ------------------------------------------------------------------

AT_EXIT = {
    "by hand": """
        orch = embedded_orch.open(sys.argv[1])
        report()
        """,
    "default": """
        os.environ["EMBEDDED_ORCH_URL"] = sys.argv[1]
        report()
        """,
    "never left": """
        embedded_orch.open(sys.argv[1]).__enter__()
        report()
        """,
    "async": """
        orch = embedded_orch.open(sys.argv[1])
        anyio.run(report_later, backend="asyncio")
        anyio.run(report_later, backend="trio")
        """,
    "sys.exit in a flow": """
        orch = embedded_orch.open(sys.argv[1])
        report()
        leave()
        """,
    "threads that go on": """
        orch = embedded_orch.open(sys.argv[1])
        report()
        never = threading.Event()
        threading.Thread(target=never.wait, daemon=True).start()
        """,
}
PROGRAM = """
import logging, os, sys, threading
# In development mode asyncio reports callbacks that a busy machine made slow.
logging.getLogger("asyncio").setLevel(logging.ERROR)
import anyio
import embedded_orch
from embedded_orch import flow, task
from embedded_orch.store.flows import ensure_flow
from embedded_orch.orchestrator import registry

@task
def one():
    return 1

@task
async def later():
    return 1

@flow
def report():
    return one() + sum(one.map([]).result()) + later.submit().result() + one.submit().result()

@flow
async def report_later():
    return await later() + later.submit().result()

@flow
def leave():
    sys.exit(0)

def main():
{}
    database = registry.current().database
    id = registry.process.new_id()
    database.announce(lambda tx: ensure_flow(tx, id=id, name="announced last", now=1))

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", AT_EXIT)
def test_interpreter_ends_without_a_warning_and_loses_nothing(path: Path, way: str) -> None:
    lines = [line[4:] for line in AT_EXIT[way].splitlines()]
    text = PROGRAM.format("\n".join(lines)).replace("sum(one.map([]).result()) + ", "")

    done = run_program(text, path, flags=("-W", "error", "-X", "dev"))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with embedded_orch.open(path) as orch:
        names = {each.name for each in orch.flows.find()}
        expected = {"sys.exit in a flow": {"report", "leave"}}.get(way, {"announced last"})
        assert expected <= names
        assert orch.task_runs.count(state_type="COMPLETED") == orch.task_runs.count() > 0
        ends = {run.state.name for run in orch.flow_runs.find() if run.state}
        assert ends <= {"Completed", "Crashed"}


@pytest.mark.slow
def test_interpreter_that_is_interrupted_records_the_crash(path: Path) -> None:
    text = """
        import os, signal, sys
        import embedded_orch
        from embedded_orch import flow

        @flow
        def interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                signal.pause()

        # A shell that starts a job behind the scenes has it ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        embedded_orch.open(sys.argv[1])
        interrupted()
        """

    done = run_program(text, path, flags=("-X", "dev"))

    assert "KeyboardInterrupt" in done.stderr
    with embedded_orch.open(path) as orch:
        [run] = orch.flow_runs.find()
        assert run.state is not None
        assert "KeyboardInterrupt" in str(run.state.message)


def test_nothing_is_left_of_a_closed_orchestrator(path: Path) -> None:
    before = set(threading.enumerate())

    with embedded_orch.open(path):
        report()
        asyncio.run(report_later())

    until(lambda: set(threading.enumerate()) <= before, "the last thread ends")


@flow
async def report_later() -> int:
    return one()

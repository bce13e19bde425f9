"""Runs that ended long ago go, with all that belongs to them; nothing else does."""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import embedded_orch
from embedded_orch import Orchestrator, Retention, errors, flow, get_run_logger, task
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.cache_policies import INPUTS
from embedded_orch.engine import removing, upkeep
from embedded_orch.engine.removing import Removal
from embedded_orch.process import Process
from embedded_orch.states import StateType
from embedded_orch.store import retention as store
from tests.engine.waiting import until
from tests.opened import Clock, opened
from tests.programs import PATIENCE, run_program
from tests.store.builders import PATHS, a_flow_run, a_task_run
from tests.warm_parent import run_forked, talking

DAY = timedelta(days=1)
TABLES = (
    "flow_run",
    "flow_run_state",
    "task_run",
    "task_run_state",
    "log",
    "artifact",
    "flow_run_input",
    "owed_hooks",
    "removal",
)
ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


def counts(orch: Orchestrator) -> dict[str, int]:
    """How many rows there are of what belongs to runs."""
    with orch.session() as session:
        found = {
            table: session.execute(f"select count(*) from {table}").scalar() for table in TABLES
        }
    return {table: count for table, count in found.items() if count}


def later(clock: Clock, age: timedelta) -> None:
    clock.sleep(age.total_seconds())


def names(orch: Orchestrator) -> list[str]:
    return sorted(str(run.flow_name) for run in orch.flow_runs.find())


@task
def measure(number: int) -> int:
    get_run_logger().info("measured")
    return number


@task(cache_policy=INPUTS)
def looked_up(number: int) -> int:
    return number


def note(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook that was called."""


@flow(on_completion=[note])
def report(count: int = 2) -> None:
    get_run_logger().info("begins")
    create_markdown_artifact("unnamed")
    for number in range(count):
        measure(number)


@flow
def section(number: int) -> int:
    return measure(number)


@flow
def book() -> list[int]:
    return [section(1), section(2)]


@flow
def fails() -> None:
    measure(1)
    raise ValueError("no")


class TestWhatGoes:
    def test_a_completed_run_goes_after_90_days_with_all_that_belongs_to_it(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            report()
            later(clock, 89 * DAY)
            assert orch.prune().total == 0

            later(clock, 2 * DAY)
            removed = orch.prune()

            assert (removed.flow_runs, removed.task_runs, removed.log_lines) == (1, 2, 5)
            assert removed.artifacts == 1
            assert counts(orch) == {}
            assert orch.flows.count() == 1

    @pytest.mark.parametrize("state", ENDED)
    def test_runs_that_may_be_resumed_are_kept_for_a_year(self, url: str, state: StateType) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            a_flow_run(orch.database, orch.engine.process, state)
            later(clock, 364 * DAY)
            orch.prune()
            is_kept = orch.flow_runs.count() == 1

            later(clock, 2 * DAY)
            orch.prune()

            assert is_kept is (state is not StateType.COMPLETED)
            assert orch.flow_runs.count() == 0

    @pytest.mark.parametrize("state", [each for each in PATHS if each not in ENDED])
    def test_a_run_that_has_not_ended_stays_for_ever(self, url: str, state: StateType) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            run_id = a_flow_run(orch.database, orch.engine.process, state)
            a_task_run(orch.database, orch.engine.process, StateType.COMPLETED, flow_run_id=run_id)
            before = counts(orch)
            later(clock, 9999 * DAY)

            assert orch.prune(timedelta(0), unfinished_older_than=timedelta(0)).total == 0
            assert counts(orch) == before

    def test_what_a_flow_called_goes_with_it_and_not_before(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            book()
            assert orch.flow_runs.count() == 3
            later(clock, 91 * DAY)

            removed = orch.prune()

            assert (removed.flow_runs, removed.task_runs) == (3, 4)
            assert counts(orch) == {}

    def test_a_tree_of_which_a_run_has_not_ended_stays_whole(self, url: str) -> None:
        """Seen to fail without the look at the whole tree."""
        clock = Clock()
        with opened(url, clock) as orch:
            book()
            child = next(orch.flow_runs.find(flow_name="section"))
            orch.flow_runs.set_state(
                child.id, embedded_orch.State(type=StateType.RUNNING, name="Running"), force=True
            )
            with orch.session() as session:
                # Its caller goes along with it, and has to look as if it had ended.
                session.execute(
                    "update flow_run set state_type = 'COMPLETED', end_time = created "
                    "where parent_task_run_id is null"
                )
            before = counts(orch)
            later(clock, 9999 * DAY)

            assert orch.prune().flow_runs == 0
            assert counts(orch) == before

    def test_a_run_whose_hooks_are_being_called_stays_until_they_were(self, url: str) -> None:
        """Seen to fail without the look at the hooks that are owed."""
        clock = Clock()
        removed: list[int] = []

        def prune(flow: Any, flow_run: Any, state: Any) -> None:
            later(clock, DAY)
            removed.append(orch.prune(timedelta(0)).flow_runs)

        @flow(on_completion=[prune])
        def tidy() -> None:
            measure(1)

        with opened(url, clock) as orch:
            tidy()

            assert removed == [0]
            assert orch.prune(timedelta(0)).flow_runs == 1

    def test_task_runs_outside_of_flows_go_too(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            measure(1)
            later(clock, 91 * DAY)
            measure(2)

            removed = orch.prune()

            assert (removed.task_runs, removed.log_lines) == (1, 1)
            assert counts(orch) == {"task_run": 1, "task_run_state": 3, "log": 1}

    def test_the_newest_artifact_of_a_key_stays(self, url: str) -> None:
        clock = Clock()

        @flow
        def weekly(text: str) -> None:
            create_markdown_artifact(text, key="weekly")

        with opened(url, clock) as orch:
            weekly("first")
            weekly("second")
            later(clock, 91 * DAY)

            assert orch.prune().artifacts == 1
            assert [each.data for each in orch.artifacts.find(key="weekly")] == ["second"]

    def test_artifacts_stay_where_that_is_asked_for(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock, retention=Retention(keep_artifacts=True)) as orch:
            report()
            later(clock, 91 * DAY)
            orch.prune()

            assert counts(orch) == {"artifact": 1}

    @pytest.mark.parametrize("also", [False, True])
    def test_cached_results_go_with_their_runs_only_where_that_is_asked_for(
        self, url: str, also: bool
    ) -> None:
        clock = Clock()
        calls: list[int] = []

        @task(cache_policy=INPUTS)
        def cached(number: int) -> int:
            calls.append(number)
            return number

        @flow
        def uses() -> int:
            return cached(1)

        with opened(url, clock, retention=Retention(cached_results=also)) as orch:
            uses()
            later(clock, 91 * DAY)
            assert orch.prune().cached_results == also
            uses()

        assert calls == ([1, 1] if also else [1])

    def test_cached_results_that_have_expired_go(self, url: str) -> None:
        clock = Clock()

        @task(cache_policy=INPUTS, cache_expiration=DAY)
        def cached(number: int) -> int:
            return number

        with opened(url, clock) as orch:
            cached(1)
            later(clock, 2 * DAY)

            assert orch.prune(dry_run=True).cached_results == 1
            assert orch.prune().cached_results == 1

    def test_processes_that_no_run_names_go(self, url: str) -> None:
        if url == ":memory:":
            pytest.skip("each opening of :memory: is a database of its own, with one process")
        clock = Clock()
        for called in (section, book, section):
            with opened(url, clock, retention=False):
                called(*([1] if called is section else []))
        with opened(url, clock, retention=False):
            fails(return_state=True)
        later(clock, 91 * DAY)
        with opened(url, clock, retention=False) as orch:
            section(1)

            assert orch.prune(90 * DAY).processes == 3

            with orch.session() as session:
                ended = [row[0] for row in session.execute("select ended from process")]
        # That of the run that failed, and this one.
        assert [each is None for each in ended] == [False, True]


class TestDryRun:
    def test_it_counts_what_would_go_and_changes_nothing(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            report()
            book()
            measure(5)
            fails(return_state=True)
            later(clock, 91 * DAY)
            before = counts(orch)

            would_go = orch.prune(dry_run=True)

            assert counts(orch) == before
            assert would_go.flow_runs == 4
            went = orch.prune()
            assert (went.flow_runs, went.task_runs, went.log_lines, went.artifacts) == (
                would_go.flow_runs,
                would_go.task_runs,
                would_go.log_lines,
                would_go.artifacts,
            )
            assert names(orch) == ["fails"]


class TestSteps:
    """A removal that takes several transactions, stops between them, and is done by several."""

    def test_a_large_tree_takes_several_transactions(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removing, "_ROWS", 3)
        clock = Clock()
        with opened(url, clock) as orch:
            report(10)
            later(clock, 91 * DAY)
            now = orch.engine.process.now()

            steps = [
                step.total
                for step in Removal(
                    orch.database, Retention(), now, orch.engine.process.new_id
                ).steps()
            ]

            assert len([step for step in steps if step]) > 4
            # One more for the flow run, and one for its process.
            assert max(steps) <= 5
            assert counts(orch) == {}

    def test_a_run_that_is_being_removed_cannot_be_resumed(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to fail without the mark: the tasks that were removed already would run again."""
        monkeypatch.setattr(removing, "_ROWS", 1)
        clock = Clock()
        with opened(url, clock) as orch:
            fails(return_state=True)
            run = next(orch.flow_runs.find())
            later(clock, 400 * DAY)
            now = orch.engine.process.now()
            steps = Removal(orch.database, Retention(), now, orch.engine.process.new_id).steps()
            next(step for step in steps if step.total)

            with pytest.raises(errors.RunNotResumable, match="is being removed"):
                fails.resume(run.id)

    def test_whoever_comes_next_goes_on_with_what_was_begun(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removing, "_ROWS", 2)
        clock = Clock()
        with opened(url, clock) as orch:
            report(4)
            later(clock, 91 * DAY)
            now = orch.engine.process.now()
            steps = Removal(orch.database, Retention(), now, orch.engine.process.new_id).steps()
            next(step for step in steps if step.total)
            del steps
            assert "removal" in counts(orch)

            # Also where nothing is old enough any more.
            orch.prune(9999 * DAY)

            assert counts(orch) == {}

    def test_a_run_that_was_resumed_since_it_was_seen_stays(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            fails(return_state=True)
            run = next(orch.flow_runs.find())
            seen = orch.database.read(lambda tx: store.tree_of(tx, run.id))
            with pytest.raises(ValueError, match="no"):
                fails.resume(run.id)

            assert not orch.database.write(lambda tx: store.mark(tx, seen))
            assert "removal" not in counts(orch)

    def test_several_at_once_remove_each_run_once(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removing, "_ROWS", 4)
        clock = Clock()
        with opened(url, clock) as orch:
            for _ in range(12):
                book()
            later(clock, 91 * DAY)
            removed = [store.Removed() for _ in range(4)]
            failed: list[BaseException] = []

            def take_part(mine: store.Removed) -> None:
                try:
                    mine.add(orch.prune())
                except BaseException as error:
                    failed.append(error)

            threads = [threading.Thread(target=take_part, args=(each,)) for each in removed]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)

            assert failed == []
            assert sum(each.flow_runs for each in removed) == 36
            assert sum(each.task_runs for each in removed) == 48
            assert counts(orch) == {}


PRUNING = """
import os, signal, sys
from datetime import timedelta
from embedded_orch.engine import removing
from embedded_orch.orchestrator import open_orchestrator

url, nth = sys.argv[1], int(sys.argv[2])
removing._ROWS = 2
left = [nth]
orch = open_orchestrator(url, retention=False)
database = orch.database
write = type(database).write

def write_or_die(self, operation, **rest):
    def counted(tx):
        value = operation(tx)
        left[0] -= 1
        if left[0] == 0:
            # In the transaction, after its statements and before its commit.
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    return write(self, counted, **rest)

type(database).write = write_or_die
orch.prune(timedelta(0), unfinished_older_than=timedelta(0))
print("done")
"""


class TestKilled:
    def test_one_killed_at_any_transaction_leaves_what_the_next_one_finishes(
        self, tmp_path: Path
    ) -> None:
        """Only runs that can be resumed no more are ever half there."""
        nth = 1
        while True:
            path = tmp_path / f"{nth}.db"
            with opened(str(path), retention=False):
                book()
                fails(return_state=True)
            program = run_forked(PRUNING, path, nth)
            with opened(str(path), retention=False) as orch:
                assert orch.check() == []
                for run in orch.flow_runs.find(flow_name="fails"):
                    whole = orch.task_runs.count(flow_run_id=run.id) == 1
                    marked = orch.database.read(
                        lambda tx, id=run.id: tx.value("retention.is_marked", flow_run_id=id)
                    )
                    assert whole or marked is not None
                orch.prune(timedelta(0), unfinished_older_than=timedelta(0))
                assert counts(orch) == {}
            if program.stdout:
                break
            assert program.returncode == -9, program.stderr
            nth += 3
        assert nth > 6


PRUNING_TOO = """
import json, sys
from datetime import timedelta
from embedded_orch.engine import removing
from embedded_orch.orchestrator import open_orchestrator

removing._ROWS = 3
with open_orchestrator(sys.argv[1], retention=False) as orch:
    print("open", flush=True)
    sys.stdin.readline()
    removed = orch.prune(timedelta(0))
print(json.dumps([removed.flow_runs, removed.task_runs]))
"""


@pytest.mark.parametrize("backend", ["file", "postgres"])
def test_several_processes_at_once_remove_each_run_once(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "orch.db")
    if backend == "postgres":
        url = request.getfixturevalue("postgres_server").new_database()
    with opened(url, retention=False):
        for _ in range(20):
            book()
    with ExitStack() as stack:
        home = str(tmp_path / "home")
        pruning = [
            stack.enter_context(talking(PRUNING_TOO, url, EMBEDDED_ORCH_HOME=home))
            for _ in range(3)
        ]
        for each in pruning:
            assert each.stdout.readline() == "open\n"
        for each in pruning:
            print("go", file=each.stdin, flush=True)
        answers = [each.stdout.read() for each in pruning]

    removed = [json.loads(answer) for answer in answers]
    assert [sum(each) for each in zip(*removed, strict=True)] == [60, 80]
    with opened(url, retention=False) as orch:
        assert counts(orch) == {}


def test_a_file_with_retention_does_not_grow(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "orch.db"
    sizes: list[int] = []
    with opened(str(path), clock, retention=3 * DAY) as orch:
        for _ in range(12):
            for _ in range(5):
                report(5)
            later(clock, DAY)
            orch.engine.upkeep.take_turn(1000)
            used, free = orch.database.read(removing.size_of)
            sizes.append(used + free)

    assert is_level(sizes)


def is_level(sizes: list[int]) -> bool:
    """Whether the last half is no larger than what the first half came to, but for a few pages."""
    half = len(sizes) // 2
    return max(sizes[half:]) <= max(sizes[:half]) * 1.1


def test_a_process_that_ends_in_the_middle_of_a_turn_ends_as_usual(tmp_path: Path) -> None:
    program = """
        import sys
        from datetime import timedelta
        import embedded_orch
        from embedded_orch import flow
        from embedded_orch.engine import removing, upkeep

        removing._ROWS = 1
        upkeep._PAUSE_SECONDS = 0.05

        @flow
        def nothing():
            return None

        orch = embedded_orch.open(sys.argv[1], retention=timedelta(0))
        for _ in range(50):
            nothing()
        with orch.session() as session:
            session.execute("update schema_migration set applied = 1")
        orch.engine.upkeep._next_look = 0
        nothing()
        assert any("upkeep" in each.name for each in __import__("threading").enumerate())
    """
    ran = run_program(program, tmp_path / "orch.db")

    assert (ran.returncode, ran.stderr) == (0, "")
    with opened(str(tmp_path / "orch.db"), retention=False) as orch:
        assert orch.flow_runs.count() < 51
        assert orch.check() == []


class TestSize:
    def filled(self, orch: Orchestrator, clock: Clock, runs: int) -> None:
        @flow
        def large() -> str:
            return "x" * 50_000

        for _ in range(runs):
            large()
            later(clock, DAY)

    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_the_oldest_completed_runs_go_before_their_time(
        self, kind: str, tmp_path: Path
    ) -> None:
        url = ":memory:" if kind == "memory" else str(tmp_path / "orch.db")
        clock = Clock()
        with opened(url, clock, retention=Retention(max_bytes=700_000)) as orch:
            self.filled(orch, clock, 20)
            fails(return_state=True)
            oldest = [run.id for run in orch.flow_runs.find(flow_name="large")][::-1]

            orch.prune()

            left = [run.id for run in orch.flow_runs.find(flow_name="large")][::-1]
            assert 0 < len(left) < 20
            assert left == oldest[-len(left) :]
            assert "fails" in names(orch)
            used, _ = orch.database.read(removing.size_of)
            assert used <= 700_000

    def test_nothing_of_the_last_day_goes_and_that_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = Clock()
        with opened(str(tmp_path / "orch.db"), clock, retention=Retention(max_bytes=1000)) as orch:
            section(1)
            later(clock, timedelta(hours=2))
            with caplog.at_level(logging.WARNING):
                assert orch.engine.upkeep.take_turn(100)

            assert orch.flow_runs.count() == 1
            assert "more than max_bytes=1000" in caplog.text


class TestTurns:
    """When it is done by itself."""

    def old_run(self, url: str) -> None:
        with opened(url, retention=False) as orch:
            section(1)
            with orch.session() as session:
                session.execute("update flow_run set end_time = 2, start_time = 1")

    def test_a_process_takes_its_turn_after_a_flow_run_and_beside_it(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            section(1)
            with orch.session() as session:
                session.execute("update flow_run set end_time = 2, start_time = 1")
            section(2)
            assert orch.flow_runs.count() == 2

            later(clock, timedelta(hours=2))
            section(3)

            until(lambda: orch.flow_runs.count() == 2, "the old run is gone")
            until(
                lambda: not any("upkeep" in each.name for each in threading.enumerate()),
                "its thread is gone",
            )

    def test_neither_opening_nor_a_first_flow_is_kept_waiting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[str] = []
        monkeypatch.setattr(
            upkeep.Upkeep, "take_turn", lambda self, most: taken.append("turn") or True
        )
        with opened(str(tmp_path / "orch.db")):
            section(1)
            assert taken == []
        assert taken == ["turn"]

    def test_a_process_of_one_run_takes_its_turn_when_it_ends(self, tmp_path: Path) -> None:
        clock = Clock()
        url = str(tmp_path / "orch.db")
        self.old_run(url)
        later(clock, timedelta(hours=2))

        with opened(url, clock):
            section(2)

        with opened(url, retention=False) as orch:
            assert orch.flow_runs.count() == 1

    def test_a_process_that_only_looks_changes_nothing(self, tmp_path: Path) -> None:
        clock = Clock()
        url = str(tmp_path / "orch.db")
        self.old_run(url)
        later(clock, timedelta(hours=2))

        with opened(url, clock) as orch:
            assert orch.flow_runs.count() == 1

        with opened(url, retention=False) as orch:
            assert orch.flow_runs.count() == 1

    def test_all_processes_together_take_one_turn_an_hour(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            section(1)
            later(clock, timedelta(hours=1, minutes=1))
            process = Process(clock=clock.now, sleep=clock.sleep)
            both = [upkeep.Upkeep(orch.database, process, None) for _ in range(2)]

            assert [each.take_turn(10) for each in both] == [True, False]
            later(clock, timedelta(hours=1, minutes=1))
            assert [each.take_turn(10) for each in both] == [True, False]

    def test_a_turn_is_bounded_and_what_is_left_is_due_at_once(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removing, "_ROWS", 1)
        clock = Clock()
        with opened(url, clock) as orch:
            report(6)
            later(clock, 91 * DAY)
            turn = orch.engine.upkeep.take_turn
            assert turn(4)
            assert orch.flow_runs.count() == 1

            assert turn(1000)

            assert orch.flow_runs.count() == 0
            assert not turn(1000)

    def test_the_turn_of_one_that_died_in_it_is_taken_by_another(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            section(1)
            later(clock, timedelta(hours=2))
            mine = orch.engine.upkeep
            assert mine._claim(orch.engine.process.now())
            assert not mine.take_turn(10)

            later(clock, timedelta(minutes=11))

            assert mine.take_turn(10)

    def test_a_clock_that_was_far_ahead_does_not_end_it(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            section(1)
            later(clock, 9999 * DAY)
            assert orch.engine.upkeep.take_turn(10)
            later(clock, -9998 * DAY)

            assert orch.engine.upkeep.take_turn(10)

    def test_a_database_that_fails_is_no_affair_of_the_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(self: Any, most: int) -> bool:
            raise errors.DatabaseFull("no room")

        monkeypatch.setattr(upkeep.Upkeep, "take_turn", fail)

        with opened(str(tmp_path / "orch.db")):
            assert section(1) == 1

        assert "the upkeep of sqlite:///" in caplog.text
        assert "no room" in caplog.text

    def test_room_is_given_back_where_there_is_much(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upkeep, "_KEPT_FREE_BYTES", 0)
        path = tmp_path / "orch.db"
        clock = Clock()

        @flow
        def large() -> str:
            return "x" * 500_000

        with opened(str(path), clock, inline_result_bytes=10_000_000) as orch:
            large()
            large()
            later(clock, 91 * DAY)
            assert orch.engine.upkeep.take_turn(100)

            with orch.session() as session:
                assert session.execute("pragma freelist_count").scalar() == 0


class TestSettings:
    def test_off_means_off(self, tmp_path: Path) -> None:
        clock = Clock()
        with opened(str(tmp_path / "orch.db"), clock, retention=False) as orch:
            section(1)
            later(clock, 9999 * DAY)
            section(2)

            assert orch.engine.upkeep.retention is None
            assert not orch.engine.upkeep.take_turn(10)
            with pytest.raises(errors.ConfigurationError, match="retention is off"):
                orch.prune()
        with opened(str(tmp_path / "orch.db"), retention=False) as orch:
            assert orch.flow_runs.count() == 2

    def test_an_age_is_that_of_completed_runs(self) -> None:
        with opened(":memory:", retention=timedelta(days=7)) as orch:
            assert orch.engine.upkeep.retention == Retention(completed=7 * DAY)

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("", Retention()),
            ("off", None),
            ("30d", Retention(completed=30 * DAY)),
            ("2w", Retention(completed=14 * DAY)),
            ("1000d", Retention(completed=1000 * DAY, unfinished=1000 * DAY)),
            (
                "completed=12h, unfinished=never, max_bytes=2GB, keep_artifacts=yes",
                Retention(
                    completed=DAY / 2, unfinished=None, max_bytes=2 * 2**30, keep_artifacts=True
                ),
            ),
        ],
    )
    def test_the_environment_says_it(
        self, monkeypatch: pytest.MonkeyPatch, text: str, meant: Retention | None
    ) -> None:
        monkeypatch.setenv("EMBEDDED_ORCH_RETENTION", text)

        with opened(":memory:") as orch:
            assert orch.engine.upkeep.retention == meant

    @pytest.mark.parametrize("text", ["a month", "30", "-1d", "completed=x", "keep=1", "1e999d"])
    def test_an_environment_that_is_not_understood_is_refused_when_opened(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
    ) -> None:
        monkeypatch.setenv("EMBEDDED_ORCH_RETENTION", text)

        with pytest.raises(errors.ConfigurationError, match="EMBEDDED_ORCH_RETENTION"):
            embedded_orch.open(tmp_path / "orch.db")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("setting", ["30d", 30, True, object()])
    def test_what_is_no_retention_is_refused(self, setting: Any) -> None:
        with pytest.raises(errors.ConfigurationError, match="retention="):
            embedded_orch.open(":memory:", retention=setting)

    @pytest.mark.parametrize(
        "fields", [{"completed": -DAY}, {"unfinished": 3}, {"max_bytes": -1}, {"max_bytes": True}]
    )
    def test_what_no_retention_can_be_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(errors.ConfigurationError, match=next(iter(fields))):
            Retention(**fields)

    def test_a_prune_below_zero_is_refused(self) -> None:
        with opened(":memory:") as orch, pytest.raises(errors.ConfigurationError):
            orch.prune(-DAY)

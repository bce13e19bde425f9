"""Results that other runs use: policies, keys, expiry, refreshing, and taking turns."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
    Inputs,
)
from embedded_orch.store import task_runs
from embedded_orch.tasks import task_input_hash
from tests.engine.waiting import until
from tests.opened import Clock, opened, runs_of, states
from tests.warm_parent import run_forked


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


class Doubling:
    """A task that doubles, and counts how often its function is called."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Any] = []

        @task(**options)
        def double(number: Any, debug: bool = False) -> Any:
            self.calls.append(number)
            return number * 2

        self.task = double


class FailingHits:
    """The records of hits fail so many times; each time a transaction is run again counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float, error: Exception) -> None:
        self.left = times
        self._error = error
        self._real = task_runs.store_ended
        monkeypatch.setattr(task_runs, "store_ended", self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            raise self._error
        return self._real(*args, **options)


FULL = errors.DatabaseFull("no room")
LASTING = errors.DatabaseError("a trigger of somebody's refuses it")


class TestAnnouncedHits:
    """On a file, where the record of a hit in a flow is announced."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[Orchestrator]:
        with opened(str(tmp_path / "orch.db")) as orchestrator:
            yield orchestrator

    def test_the_end_of_a_flow_run_is_committed_with_its_hits(self, file: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        state = flow(lambda: doubling.task(2), name="report")(return_state=True)

        run_id = state.state_details.flow_run_id
        assert run_id is not None
        # A reader that has nothing committed before finds what another process would find.
        found = file.engine.database.read_beside(
            lambda tx: task_runs.recorded_calls(tx, flow_run_id=run_id)
        )
        assert [call.state_name for call in found] == ["Cached"]

    @pytest.mark.parametrize("error", [FULL, LASTING])
    # With the group of the end, and alone; before that with the group of a read, or alone.
    @pytest.mark.parametrize(
        ("failures", "is_read_between"), [(1, False), (2, False), (1, True), (2, True), (3, True)]
    )
    def test_a_hit_that_could_not_be_written_goes_with_the_end_of_its_flow_run(
        self,
        file: Orchestrator,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        failures: int,
        is_read_between: bool,
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        @flow
        def report() -> None:
            doubling.task(2)
            if is_read_between:
                # Has what was announced committed, or fail.
                list(file.task_runs.find())

        failing = FailingHits(monkeypatch, failures, error)
        report()

        assert failing.left == 0
        [run] = file.flow_runs.find()
        assert run.state_name == "Completed"
        assert states(runs_of(file, doubling.task)[-1]) == ["Pending", "Cached"]

    def test_a_hit_that_could_not_be_written_goes_with_the_next_task(
        self, file: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        seen: list[str | None] = []

        @flow
        def report() -> None:
            doubling.task(2)
            list(file.task_runs.find())
            doubling.task(3)
            seen.extend(run.state_name for run in runs_of(file, doubling.task))

        FailingHits(monkeypatch, 2, LASTING)
        report()

        assert sorted(map(str, seen)) == ["Cached", "Completed", "Completed"]

    def test_a_task_does_not_complete_before_a_hit_that_cannot_be_written(
        self, file: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        told: list[str] = []

        @flow
        def report() -> None:
            doubling.task(2)
            try:
                doubling.task(3)
            except errors.DatabaseError as error:
                told.append(str(error))
                raise

        FailingHits(monkeypatch, math.inf, LASTING)
        with pytest.raises(errors.DatabaseError, match="trigger"):
            report()

        assert len(told) == 1
        # Whether its start is there depends on which group it came with.
        found = [run.state_name for run in runs_of(file, doubling.task)]
        assert found in (["Completed"], ["Completed", "Running"])

    def test_a_hit_after_one_that_could_not_be_written_is_awaited(
        self, file: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        told: list[str] = []

        @flow
        def report() -> None:
            doubling.task(2)
            list(file.task_runs.find())
            try:
                doubling.task(2)
            except errors.DatabaseError as error:
                told.append(str(error))

        FailingHits(monkeypatch, math.inf, LASTING)
        with pytest.raises(errors.DatabaseError, match="trigger"):
            report()

        assert len(told) == 1

    def test_a_flow_run_whose_hit_cannot_be_written_is_not_completed(
        self, file: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        @flow
        def report() -> int:
            doubled: int = doubling.task(2)
            return doubled

        with monkeypatch.context() as patched:
            FailingHits(patched, math.inf, LASTING)
            with pytest.raises(errors.DatabaseError, match="trigger"):
                report()
            [run] = file.flow_runs.find()
            assert run.state_name == "Running"
        report()

        assert sorted(str(run.state_name) for run in file.flow_runs.find()) == [
            "Completed",
            "Crashed",
        ]

    def test_a_hit_that_failed_is_not_written_in_a_session_that_is_rolled_back(
        self, file: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        @flow
        def report() -> None:
            doubling.task(2)
            list(file.task_runs.find())
            failing.left = 0
            with suppress(KeyError), file.session(begin_transaction=True):
                doubling.task(3)
                raise KeyError

        failing = FailingHits(monkeypatch, math.inf, LASTING)
        report()

        found = [run.state_name for run in runs_of(file, doubling.task)]
        assert found == ["Completed", "Cached"]


class TestHits:
    def test_an_equal_call_takes_the_result_that_is_there(self, orch: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS)

        assert [doubling.task(2), doubling.task(2), doubling.task(3)] == [4, 4, 6]

        assert doubling.calls == [2, 3]
        first, second, third = runs_of(orch, doubling.task)
        assert states(first) == ["Pending", "Running", "Completed"]
        assert states(second) == ["Pending", "Cached"]
        assert states(third) == ["Pending", "Running", "Completed"]

    def test_a_hit_is_a_completed_run_that_says_where_it_is_from(
        self, memory: Orchestrator
    ) -> None:
        doubling = Doubling(cache_key_fn=lambda context, inputs: "the key")
        doubling.task(2)

        state = doubling.task(9, return_state=True)

        assert (state.type, state.name, state.result()) == ("COMPLETED", "Cached", 4)
        assert state.state_details.cache_key == "the key"
        run = runs_of(memory, doubling.task)[-1]
        assert run.state is not None
        assert run.state.result() == 4
        assert run.run_count == 0

    def test_a_hit_on_plain_json_is_one_write_and_no_read(
        self, orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        asked = []
        for kind in ("read", "write", "announce"):
            real = getattr(orch.engine.database, kind)

            def noted(*args: Any, kind: str = kind, real: Any = real, **options: Any) -> Any:
                asked.append(kind)
                return real(*args, **options)

            monkeypatch.setattr(orch.engine.database, kind, noted)

        assert doubling.task(2) == 4

        assert asked == ["write"]

    def test_a_hit_in_a_flow_on_a_file_looks_beside_writers_and_is_announced(
        self, orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        asked: list[str] = []

        @flow
        def report() -> list[str]:
            # Has the lines go that the flow has logged.
            doubling.task(2)
            thread = threading.current_thread()
            for kind in ("read", "read_beside", "write", "announce"):
                real = getattr(orch.engine.database, kind)

                def noted(*args: Any, kind: str = kind, real: Any = real, **options: Any) -> Any:
                    if threading.current_thread() is thread:
                        asked.append(kind)
                    return real(*args, **options)

                monkeypatch.setattr(orch.engine.database, kind, noted)
            doubling.task(2)
            return list(asked)

        is_beside = orch.engine.database.reads_beside
        assert report() == (["read_beside", "announce"] if is_beside else ["write"])

    def test_hits_that_come_fast_are_all_on_record(self, orch: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        @flow
        def report() -> list[int]:
            # More than may be on their way at a time.
            return [doubling.task(2) for _ in range(150)]

        assert report() == [4] * 150
        assert [run.state_name for run in runs_of(orch, doubling.task)[1:]] == ["Cached"] * 150

    @pytest.mark.parametrize("value", [{"a": (1, 2)}, {1, 2}, "x" * 100_000])
    def test_a_value_that_is_read_otherwise_is_taken_too(
        self, orch: Orchestrator, value: Any
    ) -> None:
        calls = []

        @task(cache_policy=INPUTS)
        def made(number: int) -> Any:
            calls.append(number)
            return value

        assert [made(1), made(1)] == [value, value]

        assert calls == [1]
        assert states(runs_of(orch, made)[-1]) == ["Pending", "Cached"]

    def test_what_is_cached_outlives_the_orchestrator(self, tmp_path: Any) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        for _ in range(2):
            with opened(str(tmp_path / "orch.db")):
                assert doubling.task((1,)) == (1, 1)

        assert doubling.calls == [(1,)]

    def test_tasks_in_flows_submitted_and_mapped(self, orch: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS)

        @flow
        def several() -> list[int]:
            doubling.task(1)
            return [doubling.task.submit(1).result(), *doubling.task.map([1, 1]).result()]

        assert several() == [2, 2, 2]
        assert doubling.calls == [1]

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_async_tasks(self, memory: Orchestrator, backend: str) -> None:
        import anyio

        calls = []

        @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
        async def double(number: int) -> int:
            calls.append(number)
            return number * 2

        async def main() -> list[int]:
            return [await double(2), await double(2)]

        assert anyio.run(main, backend=backend) == [4, 4]
        assert calls == [2]

    def test_a_task_that_says_nothing_runs_each_time(self, memory: Orchestrator) -> None:
        for policy in (None, DEFAULT, NO_CACHE, NONE):
            doubling = Doubling(cache_policy=policy)
            doubling.task(2)
            doubling.task(2)
            assert doubling.calls == [2, 2]
        assert memory.sql("select count(*) from cached_result").scalar() == 0

    def test_what_is_not_persisted_is_not_cached(self, memory: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS, persist_result=False)

        doubling.task(2)
        doubling.task(2)

        assert doubling.calls == [2, 2]

    def test_a_failure_is_not_cached_and_its_retry_is(self, memory: Orchestrator) -> None:
        calls = []

        @task(cache_policy=INPUTS, retries=1)
        def flaky(number: int) -> int:
            calls.append(number)
            if len(calls) == 1:
                raise ValueError("not yet")
            return number

        assert [flaky(1), flaky(1)] == [1, 1]
        assert len(calls) == 2

    def test_two_tasks_with_equal_inputs_do_not_take_each_others_results(
        self, memory: Orchestrator
    ) -> None:
        @task(cache_policy=INPUTS)
        def plus(one: int, other: int) -> int:
            return one + other

        @task(cache_policy=INPUTS)
        def times(one: int, other: int) -> int:
            return one * other

        assert (plus(3, 4), times(3, 4)) == (7, 12)

    def test_two_tasks_share_results_by_a_key_function(self, memory: Orchestrator) -> None:
        one = Doubling(cache_key_fn=lambda context, inputs: f"double {inputs['number']}")
        other = Doubling(cache_key_fn=lambda context, inputs: f"double {inputs['number']}")

        assert one.task(2) == other.task(2)
        assert other.calls == []

    def test_a_result_that_cannot_be_read_any_more_is_none(
        self, memory: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)
        with memory.session() as session:
            session.execute("update cached_result set data = x'7b'")

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert doubling.task(2) == 4

        assert doubling.calls == [2, 2]
        assert "cannot be read" in caplog.text
        assert doubling.task(2) == 4
        assert doubling.calls == [2, 2]

    def test_a_hit_calls_the_hooks_of_completion(self, memory: Orchestrator) -> None:
        seen: list[str] = []
        doubling = Doubling(
            cache_policy=INPUTS,
            on_running=[lambda task, run, state: seen.append(state.name)],
            on_completion=[lambda task, run, state: seen.append(state.name)],
        )

        doubling.task(2)
        doubling.task(2)

        assert seen == ["Running", "Completed", "Cached"]

    def test_a_call_of_an_interrupted_run_takes_what_was_cached_meanwhile(
        self, orch: Orchestrator
    ) -> None:
        fails = True
        doubling = Doubling(cache_policy=INPUTS)

        @task(cache_key_fn=lambda context, inputs: "shared")
        def shared() -> int:
            if fails:
                raise ValueError("not yet")
            return 5

        @flow
        def outer() -> int:
            return int(shared()) + int(doubling.task(1))

        with pytest.raises(ValueError, match="not yet"):
            outer()
        fails = False
        assert shared() == 5
        fails = True
        [run] = orch.flow_runs.find()

        assert outer.resume(run.id) == 7


class TestPolicies:
    def test_an_input_that_does_not_count(self, memory: Orchestrator) -> None:
        doubling = Doubling(cache_policy=INPUTS - "debug")

        doubling.task(2, debug=True)
        doubling.task(2, debug=False)

        assert doubling.calls == [2]

    def test_no_inputs_have_no_key(self, memory: Orchestrator) -> None:
        calls = []

        @task(cache_policy=INPUTS)
        def nothing() -> int:
            calls.append(1)
            return 1

        nothing()
        nothing()

        assert calls == [1, 1]

    def test_a_key_is_the_same_in_a_flow_and_outside_of_flows(self, memory: Orchestrator) -> None:
        """In a flow it is made of the hash by which the record of the call is found."""
        doubling = Doubling(cache_policy=INPUTS)
        value = {"b": [1, 2.5, None], "a": {datetime(2026, 1, 2, tzinfo=UTC)}}

        @flow
        def outer() -> list[Any]:
            return [doubling.task(2), doubling.task(number=[value])]

        doubling.task(2)
        doubling.task([value])

        assert outer() == [4, [value, value]]
        assert doubling.calls == [2, [value]]

    def test_a_policy_made_of_inputs_says_what_the_key_is_of_in_a_flow_too(
        self, memory: Orchestrator
    ) -> None:
        class Parity(Inputs):
            def compute_key(
                self,
                task_ctx: Any,
                inputs: dict[str, Any],
                flow_parameters: dict[str, Any],
                **kwargs: Any,
            ) -> str | None:
                return super().compute_key(
                    task_ctx, {"parity": inputs["number"] % 2}, flow_parameters, **kwargs
                )

        doubling = Doubling(cache_policy=Parity())

        @flow
        def outer() -> list[Any]:
            return [doubling.task(2), doubling.task(4), doubling.task(3)]

        assert outer() == [4, 4, 6]
        assert doubling.calls == [2, 3]

    def test_inputs_that_are_told_by_their_type_make_no_key_in_a_flow(
        self, memory: Orchestrator
    ) -> None:
        calls: list[Any] = []

        @task(cache_policy=INPUTS)
        def locked(lock: Any) -> int:
            calls.append(lock)
            return len(calls)

        @flow
        def outer() -> list[int]:
            return [locked(threading.Lock()), locked(threading.Lock())]

        assert outer() == [1, 2]

    def test_the_source_and_the_parameters_of_the_flow(self, memory: Orchestrator) -> None:
        doubling = Doubling(cache_policy=TASK_SOURCE + FLOW_PARAMETERS)

        @flow
        def outer(day: str) -> int:
            return int(doubling.task(len(day)))

        assert [outer("mon"), outer("mon"), outer("friday")] == [6, 6, 12]
        assert doubling.calls == [3, 6]

    def test_the_run_alone_is_enough_within_it(self, memory: Orchestrator) -> None:
        doubling = Doubling(cache_policy=RUN_ID + INPUTS)

        @flow
        def outer() -> list[Any]:
            return [doubling.task(1), doubling.task(1), doubling.task(2)]

        assert outer() == [2, 2, 4]
        assert outer() == [2, 2, 4]
        assert doubling.calls == [1, 2, 1, 2]

    def test_inputs_that_cannot_be_hashed_are_named_and_the_call_is_made(
        self, memory: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        @task(cache_policy=INPUTS)
        def name(lock: Any) -> str:
            return type(lock).__name__

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert name(threading.Lock()) == "lock"

        assert "INPUTS - 'lock'" in caplog.text
        assert "NO_CACHE" in caplog.text
        assert memory.sql("select count(*) from cached_result").scalar() == 0

    @pytest.mark.parametrize(
        ("give", "message"),
        [
            (lambda context, inputs: 1 / 0, "ZeroDivisionError"),
            (lambda context, inputs: 17, "17"),
        ],
    )
    def test_a_key_function_that_gives_none_is_told_of(
        self, memory: Orchestrator, caplog: pytest.LogCaptureFixture, give: Any, message: str
    ) -> None:
        doubling = Doubling(cache_key_fn=give)

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert doubling.task(2) == 4

        assert message in caplog.text

    def test_a_key_function_gets_the_run_and_the_arguments(self, memory: Orchestrator) -> None:
        seen: list[Any] = []

        def key(context: Any, inputs: dict[str, Any]) -> str:
            seen.append((context.task.name, context.task_run.flow_run_id, inputs))
            return "key"

        Doubling(cache_key_fn=key).task(2)

        assert seen == [("double", None, {"number": 2, "debug": False})]

    def test_the_hash_of_inputs_as_a_key_function(self, memory: Orchestrator) -> None:
        doubling = Doubling(cache_key_fn=task_input_hash)

        assert [doubling.task(2), doubling.task(2), doubling.task(2.0)] == [4, 4, 4.0]
        assert doubling.calls == [2, 2.0]

    def test_a_policy_of_your_own(self, memory: Orchestrator) -> None:
        class Parity(CachePolicy):
            def compute_key(self, task_ctx: Any, inputs: Any, *_: Any, **__: Any) -> str:
                return f"{task_ctx.task.name} {inputs['number'] % 2}"

        doubling = Doubling(cache_policy=Parity())

        assert [doubling.task(1), doubling.task(3), doubling.task(4)] == [2, 2, 8]

    def test_sums_are_flat_and_inputs_come_last(self) -> None:
        both = (INPUTS - "a") + (TASK_SOURCE + (INPUTS - "b"))

        assert repr(both) == (
            "CompoundCachePolicy(policies=[TaskSource(), Inputs(exclude=['a', 'b'])])"
        )
        assert INPUTS + NONE == INPUTS
        assert NONE + INPUTS == INPUTS
        assert TASK_SOURCE - "a" == TASK_SOURCE
        assert repr((RUN_ID + INPUTS) - "a") == (
            "CompoundCachePolicy(policies=[RunId(), Inputs(exclude=['a'])])"
        )

    def test_policies_that_are_configured_differently_are_not_added(self) -> None:
        one = INPUTS.configure(isolation_level="SERIALIZABLE")
        other = TASK_SOURCE.configure(isolation_level="READ_COMMITTED")

        with pytest.raises(ValueError, match="isolation_level"):
            one + other
        assert (one + TASK_SOURCE).isolation_level == "SERIALIZABLE"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cache_policy": "INPUTS"}, "cache_policy"),
            ({"cache_key_fn": "key"}, "cache_key_fn"),
            ({"cache_expiration": 60}, "timedelta"),
            ({"refresh_cache": "yes"}, "neither True nor False"),
        ],
    )
    def test_wrong_options_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=message):
            Doubling(**options)

    def test_a_wrong_isolation_level_is_refused(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="SNAPSHOT"):
            INPUTS.configure(isolation_level="SNAPSHOT")

    def test_a_key_function_beside_a_policy_wins_with_a_warning(self, memory: Orchestrator) -> None:
        with pytest.warns(UserWarning, match="cache_key_fn is used"):
            doubling = Doubling(cache_policy=INPUTS, cache_key_fn=lambda context, inputs: "k")

        assert [doubling.task(1), doubling.task(2)] == [2, 2]


class TestTime:
    def test_an_expired_result_is_not_used(self, memory: Orchestrator) -> None:
        clock = Clock()
        with opened(":memory:", clock):
            doubling = Doubling(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))

            doubling.task(2)
            clock.sleep(3599)
            doubling.task(2)
            assert doubling.calls == [2]
            clock.sleep(2)
            doubling.task(2)

            assert doubling.calls == [2, 2]

    def test_what_has_expired_is_dropped_when_a_process_ends(self, tmp_path: Any) -> None:
        clock = Clock()
        url = str(tmp_path / "orch.db")
        short = Doubling(cache_key_fn=lambda *_: "short", cache_expiration=timedelta(hours=1)).task
        lasting = Doubling(cache_key_fn=lambda *_: "lasting").task

        @flow
        def both() -> None:
            short(2)
            lasting(3)

        with opened(url, clock) as orch:
            both()
            clock.sleep(3601)
            assert orch.sql("select count(*) from cached_result").scalar() == 2

        with opened(url, clock) as orch:
            assert orch.sql("select data from cached_result").scalar() == b"6"

    def test_refreshing_ignores_and_replaces_what_is_there(self, memory: Orchestrator) -> None:
        numbers = iter(range(10))

        @task(cache_key_fn=lambda context, inputs: "key")
        def following() -> int:
            return next(numbers)

        assert following() == 0
        assert following.with_options(refresh_cache=True)() == 1
        assert following() == 1

    def test_the_environment_may_refresh_all(
        self, memory: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doubling = Doubling(cache_policy=INPUTS)
        doubling.task(2)

        monkeypatch.setenv("EMBEDDED_ORCH_TASK_DEFAULT_REFRESH_CACHE", "true")
        doubling.task(2)

        assert doubling.calls == [2, 2]


class TestLongKeys:
    def test_a_result_under_a_longer_key_is_not_cached_and_the_run_completes(
        self, orch: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        doubling = Doubling(cache_key_fn=lambda context, inputs: "k" * 2001)

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert [doubling.task(2), doubling.task(2)] == [4, 4]

        assert doubling.calls == [2, 2]
        assert "2001 characters" in caplog.text
        assert states(runs_of(orch, doubling.task)[0]) == ["Pending", "Running", "Completed"]

    def test_the_longest_key_is_cached(self, orch: Orchestrator) -> None:
        doubling = Doubling(cache_key_fn=lambda context, inputs: "k" * 2000)

        assert [doubling.task(2), doubling.task(2)] == [4, 4]
        assert doubling.calls == [2]


HOLDS_A_LOCK_AND_DIES = """
import os, sys
from embedded_orch import open, task
from tests.test_caching import held

@task(cache_policy=held())
def dying():
    os._exit(7)

with open(sys.argv[1]):
    dying()
"""


def held() -> CachePolicy:
    """Calls that take turns, all of them under one key."""
    return CachePolicy.from_cache_key_fn(lambda context, inputs: "held").configure(
        isolation_level="SERIALIZABLE"
    )


def waiting_for_a_key(orch: Orchestrator) -> int:
    """How many calls wait for the lock of a cache key."""
    queues = orch.engine.room._queues
    return sum(len(queue) for name, queue in list(queues.items()) if name.startswith("cache key"))


class TestTurns:
    def test_one_computes_and_the_others_wait_for_it(self, orch: Orchestrator) -> None:
        computing, others_came = threading.Event(), threading.Event()
        calls: list[int] = []

        @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
        def slow(number: int) -> int:
            calls.append(number)
            computing.set()
            assert others_came.wait(30)
            return number * 2

        @flow
        def several() -> list[int]:
            first = slow.submit(1)
            assert computing.wait(30)
            others = [slow.submit(1) for _ in range(3)]
            until(lambda: waiting_for_a_key(orch) == 3, "the others")
            others_came.set()
            return [future.result() for future in (first, *others)]

        assert several() == [2, 2, 2, 2]
        assert calls == [1]
        until(lambda: not orch.sql("select count(*) from cache_lock").scalar(), "the release")

    def test_a_call_that_fails_gives_its_turn_away(self, memory: Orchestrator) -> None:
        calls: list[int] = []

        @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
        def failing(number: int) -> int:
            calls.append(number)
            raise ValueError("no")

        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                failing(1)

        assert calls == [1, 1]

    def test_a_lock_ends_with_its_process(self, tmp_path: Any) -> None:
        """What a killed process held is free once its death is known, which the waiter asks for."""
        url = str(tmp_path / "orch.db")
        with opened(url) as orch:
            killed = run_forked(HOLDS_A_LOCK_AND_DIES, url)
            assert killed.returncode == 7, killed.stderr
            assert orch.sql("select count(*) from cache_lock").scalar() == 1
            doubling = Doubling(cache_policy=held())

            assert doubling.task(2) == 4

            until(lambda: not orch.sql("select count(*) from cache_lock").scalar(), "the release")


class TestStableKeys:
    """Keys that were computed once, by any Python: a change of them is a change for users."""

    @pytest.mark.parametrize(
        ("policy", "key"),
        [
            (INPUTS, "9760b4ed2bee8ab44c8a07fbd922dadb"),
            (INPUTS - "debug", "023eb1d7d01123a179875a6a5b99af29"),
            (TASK_SOURCE, "9ec4d35b0db6efc2f836c1a0dfe4f6f5"),
            (INPUTS + TASK_SOURCE, "b14d9e5a62b27273119d6f7a9f97d1b4"),
        ],
        ids=repr,
    )
    def test_a_key_is_the_same_in_every_process_and_python(
        self, memory: Orchestrator, policy: CachePolicy, key: str
    ) -> None:
        golden = stable.with_options(cache_policy=policy)

        state = golden({"a": (1, 2.5)}, {"x", "y", "z"}, debug=True, return_state=True)

        found = state.state_details.cache_key
        assert found is not None
        assert found.partition(":")[0] == golden.task_key
        assert found.partition(":")[2] == key


@task
def stable(table: Any, names: Any, debug: bool = False) -> int:
    # A change of these lines changes the keys above that look at the source.
    return len(table) + len(names)

"""Whether and how results are stored: what the options say, and what a resumed run finds."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.serializers import PickleSerializer
from tests.opened import opened, the_flow_run, the_run_of


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


class Opaque:
    """Something that tagged JSON cannot hold and pickle can."""

    loaded = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).loaded += 1
        self.__dict__.update(state)


def a_failing_flow(*tasks: Any, **options: Any) -> Any:
    """A flow that calls tasks and fails the first time."""
    attempts: list[list[Any]] = []

    @flow(**options)
    def failing() -> list[Any]:
        attempts.append([each() for each in tasks])
        if len(attempts) == 1:
            raise ValueError("not yet")
        return [type(each).__name__ for each in attempts[-1]]

    return failing


class TestPersisting:
    def test_a_value_that_cannot_be_stored_stays_in_memory_and_the_task_is_told_what_helps(
        self, memory: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        @task
        def opaque() -> Opaque:
            return Opaque(1)

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert opaque().number == 1

        assert 'result_serializer="pickle" stores it' in caplog.text
        state = the_run_of(memory, opaque).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="Opaque"):
            state.result()

    @pytest.mark.parametrize("kind", ["task", "flow"])
    def test_one_that_was_to_be_stored_fails_the_run_with_that_advice(
        self, memory: Orchestrator, kind: str
    ) -> None:
        decorate: Any = task if kind == "task" else flow

        @decorate(persist_result=True, retries=3)
        def opaque() -> Opaque:
            return Opaque(1)

        with pytest.raises(errors.ValueNotStorable, match='result_serializer="pickle" stores it'):
            opaque()

        run: Any = the_run_of(memory, opaque) if kind == "task" else the_flow_run(memory)
        assert run.state.name == "Failed"

    def test_a_task_whose_value_cannot_be_stored_is_not_retried_for_that(
        self, memory: Orchestrator
    ) -> None:
        calls = []

        @task(persist_result=True, retries=3)
        def opaque() -> Opaque:
            calls.append(1)
            return Opaque(1)

        assert opaque(return_state=True).is_failed()
        assert calls == [1]

    def test_nothing_is_stored_where_that_is_not_wanted(self, orch: Orchestrator) -> None:
        @task(persist_result=False)
        def number() -> int:
            return 1

        assert number() == 1
        state = the_run_of(orch, number).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="persist_result=False"):
            state.result()

    def test_a_task_is_kept_as_its_flow_unless_it_says_otherwise(
        self, memory: Orchestrator
    ) -> None:
        @task
        def silent() -> int:
            return 1

        @task(persist_result=True)
        def stored() -> int:
            return 2

        @task(result_serializer="pickle")
        def pickled() -> int:
            return 3

        @flow
        def inner() -> int:
            return silent()

        @flow(persist_result=False)
        def outer() -> list[int]:
            return [silent(), stored(), pickled(), inner()]

        assert outer() == [1, 2, 3, 1]

        assert {run.name[:6]: _has_data(memory, run) for run in memory.task_runs.find()} == {
            "silent": False,
            "stored": True,
            "pickle": True,
            "inner-": False,
        }
        assert not any(_has_data(memory, run) for run in memory.flow_runs.find())

    def test_what_a_flow_asks_for_is_asked_of_its_own_value_alone(
        self, memory: Orchestrator
    ) -> None:
        @task
        def opaque() -> Opaque:
            return Opaque(1)

        @flow(persist_result=True)
        def outer() -> int:
            return opaque().number

        assert outer() == 1


class TestSerializers:
    def test_a_value_is_stored_by_the_serializer_and_read_by_it(self, orch: Orchestrator) -> None:
        @task(result_serializer="compressed/json")
        def numbers() -> tuple[int, ...]:
            return tuple(range(5000))

        assert numbers() == tuple(range(5000))

        state = the_run_of(orch, numbers).state
        assert state is not None
        assert state.result() == tuple(range(5000))

    def test_pickle_is_not_read_to_list_or_show(self, orch: Orchestrator) -> None:
        @task(result_serializer="pickle")
        def opaque() -> Opaque:
            return Opaque(1)

        @flow(result_serializer=PickleSerializer(picklelib="pickle"))
        def outer() -> Opaque:
            return opaque()

        outer()
        Opaque.loaded = 0

        shown = [*orch.flow_runs.find(), *orch.task_runs.find()]
        states = [state for run in shown for state in run.history]

        assert len(states) == 6
        assert Opaque.loaded == 0
        assert shown[0].state is not None
        assert shown[0].state.result().number == 1
        assert Opaque.loaded == 1

    def test_a_resumed_run_takes_values_of_all_serializers_from_the_record(
        self, orch: Orchestrator
    ) -> None:
        calls: list[str] = []

        @task(result_serializer="pickle")
        def opaque() -> Opaque:
            calls.append("opaque")
            return Opaque(1)

        @task(result_serializer="compressed/json")
        def pair() -> tuple[int, int]:
            calls.append("pair")
            return 1, 2

        failing = a_failing_flow(opaque, pair)
        with pytest.raises(ValueError, match="not yet"):
            failing()

        assert failing.resume(the_flow_run(orch).id) == ["Opaque", "tuple"]
        assert calls == ["opaque", "pair"]

    def test_pickle_that_the_task_has_not_chosen_is_not_read_by_a_resume(
        self, memory: Orchestrator
    ) -> None:
        calls: list[int] = []

        @task
        def number() -> int:
            calls.append(1)
            return 1

        failing = a_failing_flow(number)
        with pytest.raises(ValueError, match="not yet"):
            failing()
        with memory.session(begin_transaction=True) as session:
            session.execute(
                "update task_run_state set data = :data, data_format = 'pickle' "
                "where type = 'COMPLETED'",
                {"data": pickle.dumps(_Malicious())},
            )

        failing.resume(the_flow_run(memory).id)

        assert calls == [1, 1]
        assert _Malicious.loaded == 0

    def test_a_serializer_that_there_is_not_is_refused_when_it_is_named(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="'yaml'"):
            task(result_serializer="yaml")(len)

    def test_a_flow_in_a_flow_is_read_by_its_own_serializer(self, orch: Orchestrator) -> None:
        calls: list[int] = []

        @flow(result_serializer="pickle")
        def inner() -> Opaque:
            calls.append(1)
            return Opaque(1)

        failing = a_failing_flow(inner)
        with pytest.raises(ValueError, match="not yet"):
            failing()

        assert failing.resume(the_flow_run(orch, flow_name="failing").id) == ["Opaque"]
        assert calls == [1]


class _Malicious:
    loaded = 0

    def __reduce__(self) -> Any:
        return _run_something, ()


def _run_something() -> int:
    _Malicious.loaded += 1
    return 7


class TestMemory:
    def test_a_value_that_is_stored_need_not_stay_in_memory(self, orch: Orchestrator) -> None:
        made: list[list[int]] = []

        @task(cache_result_in_memory=False)
        def numbers() -> list[int]:
            made.append([1, 2])
            return made[-1]

        state = numbers(return_state=True)

        assert state.result() == [1, 2]
        assert state.result() is not made[0]
        assert state.data is None

    def test_a_value_that_is_not_stored_stays_all_the_same(self, memory: Orchestrator) -> None:
        @task(cache_result_in_memory=False, persist_result=False)
        def numbers() -> list[int]:
            return [1, 2]

        assert numbers() == [1, 2]


def _has_data(orch: Orchestrator, run: Any) -> bool:
    table = "flow" if hasattr(run, "flow_name") else "task"
    return bool(
        orch.sql(
            f"select count(*) from {table}_run_state where {table}_run_id = :id "
            "and type = 'COMPLETED' and data is not null",
            {"id": run.id},
        ).scalar()
    )

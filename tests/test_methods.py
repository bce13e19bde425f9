"""Methods, class methods, static methods and other callables as flows and tasks."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from embedded_orch import Flow, Orchestrator, Task, errors, flow, task
from tests.opened import opened, runs_of, the_flow_run


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


class Base:
    factor = 10

    def __init__(self, name: str = "base") -> None:
        self.name = name

    @flow
    def report(self, number: int) -> tuple[str, int]:
        """What it says."""
        return self.name, number

    @flow
    async def report_later(self, number: int) -> tuple[str, int]:
        return self.name, number

    @task
    def scale(self, number: int) -> tuple[str, int]:
        return self.name, number

    @task
    def count(self, number: int) -> Generator[int, None, None]:
        yield from range(number)

    @flow
    @classmethod
    def of_class(cls, number: int) -> tuple[type, int]:
        return cls, number * cls.factor

    @classmethod
    @flow
    def of_class_below(cls, number: int) -> tuple[type, int]:
        return cls, number * cls.factor

    @flow
    @staticmethod
    def static(number: int) -> int:
        return number

    @staticmethod
    @flow
    def static_below(number: int) -> int:
        return number

    @task
    @classmethod
    def task_of_class(cls, number: int) -> int:
        return number * cls.factor

    @task
    @staticmethod
    def static_task(number: int) -> int:
        return number


class Derived(Base):
    factor = 100

    @flow
    def report(self, number: int) -> tuple[str, int]:
        name, same = super().report(number)
        return f"derived {name}", same


ASKED: list[tuple[Any, Any]] = [
    (lambda: Base("x").report("3"), ("x", 3)),  # type: ignore[arg-type]
    (lambda: Base("x").report(number=3), ("x", 3)),
    (lambda: asyncio.run(Base("x").report_later(3)), ("x", 3)),
    (lambda: Derived("x").report(3), ("derived x", 3)),
    (lambda: Base.report(Base("x"), 3), ("x", 3)),
    (lambda: Base.of_class("3"), (Base, 30)),
    (lambda: Base().of_class(3), (Base, 30)),
    (lambda: Derived.of_class(3), (Derived, 300)),
    (lambda: Derived().of_class(3), (Derived, 300)),
    (lambda: Base.of_class_below("3"), (Base, 30)),
    (lambda: Derived().of_class_below(3), (Derived, 300)),
    (lambda: Base.static("3"), 3),
    (lambda: Base().static(3), 3),
    (lambda: Base.static_below("3"), 3),
    (lambda: Derived().static_below(3), 3),
    (lambda: Base("x").scale(3), ("x", 3)),
    (lambda: list(Base("x").count(2)), [0, 1]),
    (lambda: Derived.task_of_class(3), 300),
    (lambda: Base().static_task(3), 3),
]


@pytest.mark.parametrize(("call", "expected"), ASKED)
def test_call(quick: Orchestrator, call: Any, expected: Any) -> None:
    assert call() == expected


def test_tasks_are_submitted_and_mapped_with_their_objects(quick: Orchestrator) -> None:
    @flow
    def run() -> Any:
        base = Base("x")
        return (
            base.scale.submit(1).result(),
            base.scale.map([1, 2]).result(),
            base.scale.submit(1, return_state=True).result(),
            base.count.submit(2).result(),
            Derived.task_of_class.map([1, 2]).result(),
            Derived().static_task.submit(5).result(),
        )

    assert run() == (("x", 1), [("x", 1), ("x", 2)], ("x", 1), [0, 1], [100, 200], 5)


def test_bound_flow_is_a_flow_with_everything_it_has(orch: Orchestrator) -> None:
    bound = Base("x").report

    assert isinstance(bound, Flow)
    assert isinstance(Base("x").scale, Task)
    assert bound.name == "report"
    assert bound(3, return_state=True).result() == ("x", 3)
    assert bound.validate_parameters({"number": "3"}) == {"number": 3}
    assert list(bound.parameters.properties) == ["number"]
    named = bound.with_options(name="other")
    assert named(4) == ("x", 4)
    assert [run.flow_name for run in orch.flow_runs.find()] == ["other", "report"]
    assert "of <" in repr(bound)


def test_class_method_with_other_options_is_still_one(quick: Orchestrator) -> None:
    assert Derived.of_class.with_options(name="other")(1) == (Derived, 100)
    assert Base().static.with_options(name="other")(1) == 1


def test_what_is_worked_out_of_the_function_is_shared() -> None:
    assert Base("x").report.spec is Base("y").report.spec is Base.report.spec


def test_kinds() -> None:
    kinds = [
        (each.ismethod, each.isclassmethod, each.isstaticmethod)
        for each in (Base.report, Base().report, Base.of_class, Base.static, Base().scale)
    ]

    assert kinds == [
        (False, False, False),
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, False, False),
    ]


def test_method_is_resumed_with_its_object(orch: Orchestrator) -> None:
    class Job:
        def __init__(self, is_broken: bool) -> None:
            self.is_broken = is_broken

        @flow
        def run(self, number: int) -> int:
            if self.is_broken:
                raise ConnectionError
            return number

    with pytest.raises(ConnectionError):
        Job(True).run(3)

    assert Job(False).run.resume(the_flow_run(orch).id) == 3


def test_hooks_of_a_bound_flow_are_those_of_the_flow(quick: Orchestrator) -> None:
    heard: list[str] = []

    class Job:
        @flow
        def run(self) -> None: ...

    Job().run.on_completion(lambda flow, run, state: heard.append(state.name))
    Job().run()

    assert heard == ["Completed"]


def test_flows_and_tasks_may_be_attributes_of_objects(quick: Orchestrator) -> None:
    @flow
    def double(number: int) -> int:
        return number * 2

    class Holder:
        def __init__(self) -> None:
            self.double = double

    assert Holder().double(2) == 4


# -- other callables -----------------------------------------------------------------------------


class Adder:
    """Adds."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, number: int) -> int:
        return number + self.amount


class LaterAdder(Adder):
    async def __call__(self, number: int) -> int:  # type: ignore[override]
        return number + self.amount


def test_callable_objects(quick: Orchestrator) -> None:
    add = flow(Adder(5))

    assert add.name == "Adder"
    assert add("3") == 8  # type: ignore[arg-type]
    later = task(LaterAdder(5))
    assert later.isasync
    assert asyncio.run(later(3)) == 8
    assert later.name == "LaterAdder"


def test_partials(quick: Orchestrator) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    added = task(functools.partial(add, b=2), name="add")

    assert added(1) == 3
    assert len(runs_of(quick, added)) == 1


def test_lambdas(quick: Orchestrator) -> None:
    double = flow(lambda number: number * 2)

    assert double.name == "unknown-lambda"
    assert double(2) == 4
    assert task(lambda number: number * 2)(2) == 4


def test_signature_docstring_and_function_are_kept() -> None:
    @flow
    async def report(number: int, *, name: str = "x") -> str:
        """What it says."""
        return name

    assert report.__doc__ == "What it says."
    assert report.__name__ == "report"
    assert report.__wrapped__ is report.fn
    assert str(inspect.signature(report)) == "(number: 'int', *, name: 'str' = 'x') -> 'str'"
    # As with Prefect: what is decorated is an object, which says itself what it is.
    assert not inspect.iscoroutinefunction(report)
    assert inspect.iscoroutinefunction(report.fn)
    assert report.isasync


@pytest.mark.parametrize("decorate", [flow, task])
def test_what_cannot_be_called_is_refused(decorate: Any) -> None:
    with pytest.raises(errors.SignatureError, match="cannot be called"):
        decorate(3)

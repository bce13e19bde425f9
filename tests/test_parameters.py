"""Parameters of flows: checked and converted before the function is called, and their schema."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.engine.conversion import Compiler
from tests.opened import Clock, opened, states, the_flow_run

if TYPE_CHECKING:
    from nowhere import OnlyForCheckers  # type: ignore[import-not-found]


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url, Clock()) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:", Clock()) as orchestrator:
        yield orchestrator


@dataclasses.dataclass
class Settings:
    size: int
    since: date = date(2024, 1, 1)


@flow
def report(root: Path, settings: Settings | None = None, *sizes: int, **rates: float) -> Any:
    return root, settings, sizes, rates


# -- calls ---------------------------------------------------------------------------------------


def test_parameters_are_converted_and_recorded_as_they_came(orch: Orchestrator) -> None:
    got = report("data", {"size": "3"}, "4", 5, discount="0.5")  # type: ignore[arg-type]

    assert got == (Path("data"), Settings(3), (4, 5), {"discount": 0.5})
    assert the_flow_run(orch).parameters == {
        "root": "data",
        "settings": {"size": "3"},
        "sizes": ("4", 5),
        "rates": {"discount": "0.5"},
    }


def test_parameters_that_do_not_fit_fail_the_run_and_each_is_named(orch: Orchestrator) -> None:
    with pytest.raises(errors.ParameterTypeError) as raised:
        report(3, {"size": "q"}, "x", discount=None)  # type: ignore[arg-type]

    assert str(raised.value).splitlines() == [
        "flow report was called with parameters that do not fit:",
        " - root: wanted Path, got 3 (int)",
        " - settings.size: wanted int, got 'q' (str)",
        " - sizes[0]: wanted int, got 'x' (str)",
        " - rates['discount']: wanted float, got None (NoneType)",
    ]
    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Failed"]
    assert run.state is not None
    assert run.state.message is not None
    assert run.state.message.startswith("Validation of flow parameters failed: ParameterTypeError")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_parameters_of_an_async_flow_are_converted(quick: Orchestrator, loop: str) -> None:
    import anyio

    @flow
    async def double(number: int) -> int:
        return number * 2

    assert anyio.run(double, "3", backend=loop) == 6


def test_parameters_that_do_not_fit_are_not_retried(orch: Orchestrator) -> None:
    called = []

    @flow(retries=3, retry_delay_seconds=10)
    def count(number: int) -> None:
        called.append(number)

    with pytest.raises(errors.ParameterTypeError):
        count("q")  # type: ignore[arg-type]

    assert called == []
    assert states(the_flow_run(orch)) == ["Pending", "Failed"]


def test_parameters_of_a_subflow_are_converted_once_its_futures_are_there(
    quick: Orchestrator,
) -> None:
    @task
    def find() -> str:
        return "3"

    @flow
    def inner(number: int) -> int:
        return number

    @flow
    def outer() -> int:
        return inner(find.submit())  # type: ignore[arg-type]

    assert outer() == 3


def test_validation_can_be_turned_off(quick: Orchestrator) -> None:
    @flow(validate_parameters=False)
    def count(number: int) -> Any:
        return number

    assert count("q") == "q"  # type: ignore[arg-type]
    assert not count.should_validate_parameters


def test_parameters_of_a_resumed_run_are_converted_again(orch: Orchestrator) -> None:
    seen: list[Any] = []

    @flow
    def count(since: date) -> None:
        seen.append(since)
        if len(seen) == 1:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        count("2024-01-01")  # type: ignore[arg-type]
    count.resume(the_flow_run(orch).id)

    assert seen == [date(2024, 1, 1)] * 2


def test_resumed_run_whose_parameters_do_not_fit_any_more_fails(orch: Orchestrator) -> None:
    @flow(name="count")
    def before(number: Any) -> None:
        raise ConnectionError

    @flow(name="count")
    def after(number: int) -> None:
        raise AssertionError

    with pytest.raises(ConnectionError):
        before("many")
    with pytest.raises(errors.ParameterTypeError, match="number: wanted int, got 'many'"):
        after.resume(the_flow_run(orch).id)

    assert states(the_flow_run(orch))[-2:] == ["Running", "Failed"]


def test_defaults_are_converted_and_none_needs_no_annotation(quick: Orchestrator) -> None:
    @flow
    def count(since: date = "2024-01-01", name: str = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return since, name

    assert count() == (date(2024, 1, 1), None)
    assert count(name=None) == (date(2024, 1, 1), None)  # type: ignore[arg-type]


def test_annotations_that_cannot_be_evaluated_are_not_checked(quick: Orchestrator) -> None:
    lock = threading.Lock()

    class Inner:
        pass

    @flow
    def run(a: OnlyForCheckers, b: Inner, c: no_such_name, d: int) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return a, b, c, d

    assert run(lock, lock, lock, "1") == (lock, lock, lock, 1)  # type: ignore[arg-type]


def test_annotations_may_name_what_the_function_encloses(quick: Orchestrator) -> None:
    @dataclasses.dataclass
    class Inner:
        size: int

    @flow
    def run(inner: Inner) -> bool:
        return isinstance(inner, Inner)

    assert run({"size": 1})  # type: ignore[arg-type]


def test_partial_is_checked_by_what_it_wraps(quick: Orchestrator) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    assert flow(functools.partial(add, 1), name="add")(b="2") == 3  # type: ignore[arg-type]


def test_wrapped_function_is_checked_by_what_it_wraps(quick: Orchestrator) -> None:
    def double(number: int) -> int:
        return number * 2

    @functools.wraps(double)
    def logged(*args: Any, **kwargs: Any) -> Any:
        return double(*args, **kwargs)

    assert flow(logged)("2") == 4


def test_constructor_of_the_users_may_raise_anything(quick: Orchestrator) -> None:
    @dataclasses.dataclass
    class Picky:
        size: int

        def __post_init__(self) -> None:
            raise LookupError("no such size")

    @flow
    def run(picky: Picky) -> type[Picky]:
        return Picky

    with pytest.raises(errors.ParameterTypeError, match="LookupError: no such size"):
        run({"size": 1})  # type: ignore[arg-type]


def test_annotations_are_compiled_once_and_at_the_first_call(
    quick: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    original = Compiler.converter

    def counted(self: Compiler, annotation: Any, bound: Any = None) -> Any:
        compiled.append(annotation)
        return original(self, annotation, bound)

    monkeypatch.setattr(Compiler, "converter", counted)

    @flow
    def count(number: int) -> int:
        return number

    assert compiled == []
    count(1)
    count(2)
    assert compiled == [int]


# -- asked for -----------------------------------------------------------------------------------


def test_parameters_are_validated_without_a_run(quick: Orchestrator) -> None:
    assert report.validate_parameters({"root": "data", "sizes": ["1"]}) == {
        "root": Path("data"),
        "settings": None,
        "sizes": (1,),
        "rates": {},
    }
    with pytest.raises(errors.ParameterTypeError, match="root: needed, and not given"):
        report.validate({})
    with pytest.raises(errors.ParameterBindError, match=r"no parameter 'rot'; it takes root, "):
        report.validate({"rot": "x"})
    assert quick.flow_runs.count() == 0


def test_parameters_as_a_schema() -> None:
    @flow
    def count(
        self: Any,
        root: Path,
        limit: Annotated[int, msgspec.Meta(gt=0)] = 3,
        *sizes: int,
        settings: Settings,
        since: date = date(2024, 1, 1),
        lock: Any = None,
    ) -> None:
        """Count.

        Args:
            self: not a parameter.
            root: where it
                begins
            limit (int): at most
            settings: how

        Returns:
            nothing
        """

    schema = count.parameters

    assert (schema.title, schema.type) == ("Parameters", "object")
    assert schema.required == ["root", "settings"]
    assert schema.properties == {
        "root": {
            "type": "string",
            "format": "path",
            "description": "where it\nbegins",
            "title": "root",
            "position": 1,
        },
        "limit": {
            "type": "integer",
            "exclusiveMinimum": 0,
            "default": 3,
            "description": "at most",
            "title": "limit",
            "position": 2,
        },
        "settings": {
            "$ref": "#/definitions/Settings",
            "description": "how",
            "title": "settings",
            "position": 3,
        },
        "since": {
            "type": "string",
            "format": "date",
            "default": "2024-01-01",
            "title": "since",
            "position": 4,
        },
        "lock": {"default": None, "title": "lock", "position": 5},
        "sizes": {
            "type": "array",
            "items": {"type": "integer"},
            "title": "sizes",
            "position": 6,
        },
    }
    assert schema.definitions["Settings"]["required"] == ["size"]
    assert schema.model_dump()["properties"] == schema.properties
    assert count.parameters is schema


def test_schema_without_required_parameters_for_openapi() -> None:
    @flow
    def count(limit: int = 3) -> None: ...

    assert count.parameters.model_dump()["required"] == []
    assert "required" not in count.parameters.model_dump_for_openapi()


def test_parameters_are_serialized_where_json_can_hold_them() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        since: date

    found = report.serialize_parameters(
        {
            "date": date(2024, 1, 1),
            "path": Path("x"),
            "model": Model(since=date(2024, 1, 1)),
            "set": {1},
            "settings": Settings(1),
            "lock": threading.Lock(),
        }
    )

    assert found == {
        "date": "2024-01-01",
        "path": "x",
        "model": {"since": "2024-01-01"},
        "set": [1],
        "settings": {"size": 1, "since": "2024-01-01"},
        "lock": "<lock>",
    }


def test_pydantic_field_as_a_default_gives_value_and_bounds(orch: Orchestrator) -> None:
    pydantic = pytest.importorskip("pydantic")

    @flow
    def count(limit: int = pydantic.Field(default=3, gt=1)) -> int:
        return limit

    assert count() == 3
    assert the_flow_run(orch).parameters == {"limit": 3}
    with pytest.raises(errors.ParameterTypeError, match="limit: Input should be greater than 1"):
        count(0)
    assert count.parameters.properties["limit"]["default"] == 3


def test_models_of_pydantic_are_parameters_and_part_of_the_schema(quick: Orchestrator) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        size: int

    @flow
    def measure(model: Model) -> tuple[type[Model], int]:
        return Model, model.size

    assert measure({"size": "3"}) == (Model, 3)  # type: ignore[arg-type]
    assert measure.parameters.properties["model"]["$ref"] == "#/definitions/Model"
    assert measure.parameters.definitions["Model"]["properties"]["size"]["type"] == "integer"

"""Objects with fields as parameters and results: a resumed run has equal ones of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest

from embedded_orch import flow, task
from tests.opened import opened, the_flow_run

if TYPE_CHECKING:
    import pydantic
else:
    pydantic = pytest.importorskip("pydantic", "2.10")


@dataclass
class OfDataclass:
    article: str
    counts: tuple[int, ...] = ()


@attrs.define
class OfAttrs:
    article: str
    counts: tuple[int, ...] = ()


class OfStruct(msgspec.Struct):
    article: str
    counts: tuple[int, ...] = ()


class OfPydantic(pydantic.BaseModel):
    article: str
    counts: tuple[int, ...] = ()


CLASSES: list[Any] = [OfDataclass, OfAttrs, OfStruct, OfPydantic]


@pytest.mark.parametrize("cls", CLASSES)
def test_resumed_flow_has_the_object_it_was_called_with_and_the_results(url: str, cls: Any) -> None:
    calls: list[Any] = []
    broken = [True]

    @task
    def double(order: Any) -> Any:
        calls.append(order)
        return cls(article=order.article, counts=order.counts * 2)

    @flow
    def deliver(order: cls) -> Any:
        doubled = double(order)
        if broken.pop():
            raise OSError("no network")
        return order, doubled

    order = cls(article="pen", counts=(1, 2))
    with opened(url) as orch:
        state = deliver(order, return_state=True)
        run = the_flow_run(orch)
        broken.append(False)

        found = deliver.resume(run.id)

        assert state.is_failed()
        assert run.unstored_parameters == {}
        assert run.parameters == {"order": order}
        assert found == (order, cls(article="pen", counts=(1, 2, 1, 2)))
        assert list(map(type, found)) == [cls, cls]
        assert calls == [order]


@pytest.mark.parametrize("cls", CLASSES)
def test_newest_run_is_found_by_an_equal_object(url: str, cls: Any) -> None:
    broken = [True, True]

    @flow
    def deliver(order: cls) -> str:
        if broken.pop():
            raise OSError("no network")
        return order.article

    with opened(url):
        for article in ("pen", "ink"):
            deliver(cls(article=article), return_state=True)
        broken.append(False)

        assert deliver.resume(parameters={"order": cls(article="pen")}) == "pen"

"""What the modules of :mod:`embedded_orch.runtime` tell alike of the run that the code is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from embedded_orch.runtime.overriding import Attribute, json

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.engine.contexts import FlowRunContext, TaskRunContext

R = TypeVar("R", "FlowRunContext", "TaskRunContext")
T = TypeVar("T")


def none() -> None:
    """There is no such thing."""


def told_of(
    current: Callable[[], R | None], tell: Callable[[R], T], outside: Callable[[], T]
) -> Callable[[], T]:
    """How an attribute is read.

    Args:
        current: the run that the code is in, if it is in one.
        tell: its value for that run.
        outside: its value outside of runs.
    """

    def read() -> T:
        here = current()
        return outside() if here is None else tell(here)

    return read


def attributes_of(current: Callable[[], R | None]) -> dict[str, Attribute]:
    """The attributes that flow runs and task runs both have.

    Args:
        current: the run that the code is in, if it is in one.
    """
    return {
        "id": Attribute(told_of(current, lambda here: str(here.run_id), none)),
        "name": Attribute(told_of(current, lambda here: here.name, none)),
        "tags": Attribute(told_of(current, lambda here: list(here.tags), list), json),
        "parameters": Attribute(told_of(current, lambda here: dict(here.parameters), dict), json),
        "run_count": Attribute(told_of(current, lambda here: here.run_count, int), int),
        "api_url": Attribute(none),
        "ui_url": Attribute(none),
    }

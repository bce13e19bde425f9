"""Loggers of runs, and of what is no run."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import current_flow_run, current_task_run
from embedded_orch.engine.printing import keeping_prints
from embedded_orch.engine.run_logging import (
    FLOW_RUNS,
    TASK_RUNS,
    RunElsewhere,
    RunLogger,
    logger_of,
    logger_of_run_elsewhere,
)
from embedded_orch.errors import MissingContextError
from embedded_orch.logging import get_run_logger

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Self
    from uuid import UUID

    from embedded_orch.context import FlowRunContext, FlowRunHere, TaskRunContext, TaskRunHere
    from embedded_orch.flows import Flow
    from embedded_orch.runs import FlowRun, TaskRun
    from embedded_orch.tasks import Task

__all__ = [
    "LogEavesdropper",
    "PrefectLogAdapter",
    "RunLogger",
    "disable_logger",
    "disable_run_logger",
    "flow_run_logger",
    "get_logger",
    "get_run_logger",
    "patch_print",
    "print_as_log",
    "task_run_logger",
]

_ROOT = "embedded_orch"

PrefectLogAdapter = RunLogger
"""The name that Prefect has for it."""


def get_logger(name: str | None = None) -> logging.Logger:
    """An ordinary logger below ``embedded_orch``, or that one itself. It belongs to no run."""
    if name is None or name == _ROOT:
        return logging.getLogger(_ROOT)
    return logging.getLogger(name if name.startswith(f"{_ROOT}.") else f"{_ROOT}.{name}")


def run_logger(
    context: FlowRunContext | TaskRunContext | None, extra: Mapping[str, object]
) -> RunLogger:
    """See :func:`embedded_orch.logging.get_run_logger`."""
    run = (current_task_run() or current_flow_run()) if context is None else context.here
    if run is not None:
        return logger_of(run, extra)
    loggers = [logging.getLogger(name) for name in (FLOW_RUNS, TASK_RUNS)]
    if all(logger.disabled for logger in loggers):
        # Inside disable_run_logger(), which is made for this.
        return RunLogger(loggers[1], dict(extra))
    raise MissingContextError(
        "get_run_logger() was called where no flow and no task runs; call it inside one, use "
        "logging.getLogger(), or call the code inside `with disable_run_logger():`"
    )


def flow_run_logger(
    flow_run: FlowRun | FlowRunHere, flow: Flow[..., Any] | None = None, **extra: object
) -> RunLogger:
    """The logger of a flow run that need not be the one that the running code is in.

    Args:
        flow_run: the run; what it logs is kept by the orchestrator that is meant here.
        flow: its flow.
        extra: more attributes for its records.
    """
    attributes: dict[str, object] = {
        "flow_run_id": str(flow_run.id),
        "flow_run_name": flow_run.name,
        "flow_name": "<unknown>" if flow is None else flow.name,
        **extra,
    }
    run = _elsewhere(flow_run.id, None, flow_run.name)
    return logger_of_run_elsewhere(FLOW_RUNS, run, attributes)


def task_run_logger(
    task_run: TaskRun | TaskRunHere,
    task: Task[..., Any] | None = None,
    flow_run: FlowRun | FlowRunHere | None = None,
    flow: Flow[..., Any] | None = None,
    **extra: object,
) -> RunLogger:
    """The logger of a task run that need not be the one that the running code is in.

    Args:
        task_run: the run; what it logs is kept by the orchestrator that is meant here.
        task: its task.
        flow_run: its flow run.
        flow: the flow of that.
        extra: more attributes for its records.
    """
    attributes: dict[str, object] = {
        "task_run_id": str(task_run.id),
        "flow_run_id": str(task_run.flow_run_id),
        "task_run_name": task_run.name,
        "task_name": "<unknown>" if task is None else task.name,
        "flow_run_name": "<unknown>" if flow_run is None else flow_run.name,
        "flow_name": "<unknown>" if flow is None else flow.name,
        **extra,
    }
    run = _elsewhere(task_run.flow_run_id, task_run.id, task_run.name)
    return logger_of_run_elsewhere(TASK_RUNS, run, attributes)


def _elsewhere(flow_run_id: UUID | None, task_run_id: UUID | None, label: str) -> RunElsewhere:
    from embedded_orch.orchestrator import registry

    here = current_flow_run()
    engine = registry.current().engine if here is None else here.engine
    return RunElsewhere(engine, flow_run_id, task_run_id, label)


@contextmanager
def disable_logger(name: str) -> Generator[None]:
    """Have a logger do nothing inside the block."""
    logger = logging.getLogger(name)
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was_disabled


@contextmanager
def disable_run_logger() -> Generator[None]:
    """Have the loggers of runs do nothing inside the block, in all threads.

    There ``get_run_logger()`` works outside of runs too, as a task's function that is tested by
    itself needs it: ``with disable_run_logger(): my_task.fn()``.
    """
    with disable_logger(FLOW_RUNS), disable_logger(TASK_RUNS):
        yield


@contextmanager
def patch_print() -> Generator[None]:
    """Have prints inside the block kept as those of a run with ``log_prints`` are.

    Only those of runs that ask for it: the engine does this for such a run by itself.
    """
    with keeping_prints(is_asked_for=True):
        yield


def print_as_log(*values: object, **options: Any) -> None:
    """Print, and keep what is printed if the running code belongs to a run with ``log_prints``.

    Args:
        values: as ``print`` takes them.
        options: as ``print`` takes them.
    """
    with keeping_prints(is_asked_for=True):
        print(*values, **options)  # noqa: T201 - that is what it is for


class LogEavesdropper(logging.Handler):
    """Collects what a logger is told inside a ``with`` block, as one text.

    Args:
        eavesdrop_on: the name of the logger.
        level: from which level on.
    """

    def __init__(self, eavesdrop_on: str, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.eavesdrop_on = eavesdrop_on
        self._heard = StringIO()
        self.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d | %(levelname)-7s | %(message)s")
        )

    def __enter__(self) -> Self:
        logging.getLogger(self.eavesdrop_on).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(self.eavesdrop_on).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._heard.write(f"{self.format(record)}\n")

    def text(self) -> str:
        """All that was heard."""
        return self._heard.getvalue()

"""Loggers of runs: ``get_run_logger()`` and what goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded_orch.context import FlowRunContext, TaskRunContext
    from embedded_orch.engine.run_logging import RunLogger
    from embedded_orch.logging.loggers import LogEavesdropper, disable_run_logger, get_logger

__all__ = ["LogEavesdropper", "disable_run_logger", "get_logger", "get_run_logger"]


def get_run_logger(
    context: FlowRunContext | TaskRunContext | None = None, **extra: object
) -> RunLogger:
    """The logger of the run that the running code is in: of its task run, else of its flow run.

    What it logs is kept with the run, from whichever thread.

    Args:
        context: that of another run.
        extra: more attributes for its records.

    Raises:
        MissingContextError: no flow and no task runs here; see :func:`disable_run_logger`.
    """
    # With the engine and the standard library's logging: not before they are needed.
    from embedded_orch.logging.loggers import run_logger

    return run_logger(context, extra)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from embedded_orch.logging import loggers

    value: object = getattr(loggers, name)
    globals()[name] = value
    return value

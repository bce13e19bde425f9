"""An embedded workflow orchestrator: flows, tasks and their records, inside your own process.

The names below are resolved when they are first used, so that importing this package costs next to
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded_orch import runtime
    from embedded_orch.annotations import allow_failure, unmapped
    from embedded_orch.client import get_client
    from embedded_orch.engine.retention import Retention
    from embedded_orch.engine.tags import tags
    from embedded_orch.flow_runs import (
        apause_flow_run,
        aresume_flow_run,
        asuspend_flow_run,
        pause_flow_run,
        resume_flow_run,
        suspend_flow_run,
    )
    from embedded_orch.flows import Flow, flow
    from embedded_orch.futures import Future, FutureList
    from embedded_orch.logging import get_run_logger
    from embedded_orch.orchestrator import Orchestrator, open
    from embedded_orch.runs import FlowRun, TaskRun
    from embedded_orch.states import State, StateType
    from embedded_orch.tasks import Task, task
    from embedded_orch.transactions import Transaction
    from embedded_orch.values import Secret
    from embedded_orch.waiting import (
        asleep_for,
        asleep_until,
        await_for_signal,
        send_signal,
        sleep_for,
        sleep_until,
        wait_for_signal,
    )

__all__ = [
    "Flow",
    "FlowRun",
    "Future",
    "FutureList",
    "Orchestrator",
    "Retention",
    "Secret",
    "State",
    "StateType",
    "Task",
    "TaskRun",
    "Transaction",
    "allow_failure",
    "apause_flow_run",
    "aresume_flow_run",
    "asleep_for",
    "asleep_until",
    "asuspend_flow_run",
    "await_for_signal",
    "flow",
    "get_client",
    "get_run_logger",
    "open",
    "pause_flow_run",
    "resume_flow_run",
    "runtime",
    "send_signal",
    "sleep_for",
    "sleep_until",
    "suspend_flow_run",
    "tags",
    "task",
    "unmapped",
    "wait_for_signal",
]

_HOMES = {
    "Flow": "flows",
    "FlowRun": "runs",
    "Future": "futures",
    "FutureList": "futures",
    "Orchestrator": "orchestrator",
    "Retention": "engine.retention",
    "Secret": "values",
    "State": "states",
    "StateType": "states",
    "Task": "tasks",
    "TaskRun": "runs",
    "Transaction": "transactions",
    "allow_failure": "annotations",
    "apause_flow_run": "flow_runs",
    "aresume_flow_run": "flow_runs",
    "asleep_for": "waiting",
    "asleep_until": "waiting",
    "asuspend_flow_run": "flow_runs",
    "await_for_signal": "waiting",
    "flow": "flows",
    "get_client": "client",
    "get_run_logger": "logging",
    "open": "orchestrator",
    "pause_flow_run": "flow_runs",
    "resume_flow_run": "flow_runs",
    "send_signal": "waiting",
    "sleep_for": "waiting",
    "sleep_until": "waiting",
    "suspend_flow_run": "flow_runs",
    "tags": "engine.tags",
    "task": "tasks",
    "unmapped": "annotations",
    "wait_for_signal": "waiting",
}
# Used as attributes, as in ``embedded_orch.runtime.flow_run``, they are imported then.
_MODULES = frozenset({"runtime"})


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home is None:
        return import_module(f"{__name__}.{name}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

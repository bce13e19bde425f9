"""``embedded-orch runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.cli import text
from embedded_orch.cli.opening import opened_for_runs
from embedded_orch.process import Process
from embedded_orch.store.finding import find_ids
from embedded_orch.store.flow_runs import get_flow_runs

if TYPE_CHECKING:
    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.store.flow_runs import FlowRunRow

_HEAD = ("NAME", "FLOW", "STATE", "STARTED", "DURATION", "ID")
_WIDEST_NAME = 40


def list_runs(arguments: Arguments) -> int:
    """Print flow runs, newest first."""
    process = Process()
    given = {"flow_names": arguments.flow, "state_types": arguments.state}
    filters = {name: [value] for name, value in given.items() if value is not None}
    with opened_for_runs(arguments.db, process) as shared:
        found = shared.database.read(
            lambda tx: get_flow_runs(
                tx, find_ids(tx, "flow_run", filters, limit=arguments.limit)[0]
            )
        )
        where = shared.database.url
    if not found:
        print(f"no flow runs in {where}" + (" that fit" if filters else ""))
        return 0
    now = process.now()
    print(text.table(_HEAD, [_row(run, now) for run in found]))
    return 0


def _row(run: FlowRunRow, now: int) -> tuple[str, ...]:
    return (
        text.cut(run.name, _WIDEST_NAME),
        text.cut(run.flow_name, _WIDEST_NAME),
        text.cut(run.state.name, _WIDEST_NAME) if run.state is not None else "-",
        text.moment(run.start_time),
        text.duration(text.elapsed(run.start_time, run.end_time, now)),
        str(run.id),
    )

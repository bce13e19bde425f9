"""``embedded-orch run ID``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import values
from embedded_orch.cli import text
from embedded_orch.cli.opening import opened_for_runs
from embedded_orch.cli.run_ids import check_digits, flow_run_id
from embedded_orch.process import Process
from embedded_orch.states import ERROR, VALUE, StateType
from embedded_orch.store.flow_runs import FlowRunRow, get_flow_runs
from embedded_orch.values.places import described

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.db.port import Transaction

_WIDEST_VALUE = 500
_WIDEST_NAME = 40
_WIDEST_MESSAGE = 100
_RESUMABLE = frozenset({StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.PAUSED})


class _Found(msgspec.Struct):
    """A flow run with all that is shown of it, as it was at one moment."""

    run: FlowRunRow
    states: list[tuple[Any, ...]]
    tasks: list[tuple[Any, ...]]
    task_counts: list[tuple[Any, ...]]
    owner: tuple[Any, ...] | None


def show_run(arguments: Arguments) -> int:
    """Print one flow run."""
    check_digits(arguments.id)
    process = Process()
    with opened_for_runs(arguments.db, process) as shared:
        url = shared.database.url
        found = shared.database.read(
            lambda tx: _find(tx, arguments.id, url, most_tasks=arguments.tasks)
        )
    print("\n\n".join(_sections(found, process.now())))
    return 0


def _find(tx: Transaction, word: str, url: str, *, most_tasks: int) -> _Found:
    [run] = get_flow_runs(tx, [flow_run_id(tx, word, url)])
    return _Found(
        run=run,
        states=tx.rows("flow_run_state.history", flow_run_id=run.id),
        tasks=tx.rows("checks.task_runs_of", flow_run_id=run.id, limit=most_tasks),
        task_counts=tx.rows("checks.task_run_counts_of", flow_run_id=run.id),
        owner=None if run.owner_id is None else tx.row("process.get", id=run.owner_id),
    )


def _sections(found: _Found, now: int) -> Iterator[str]:
    yield _facts(found, now)
    parameters = list(_parameters(found.run))
    if parameters:
        yield "\n".join(["Parameters", *(f"  {line}" for line in parameters)])
    yield "States\n" + text.table(
        ("TIME", "STATE", "MESSAGE"),
        [
            (text.moment(timestamp, exact=True), text.cut(name, _WIDEST_NAME), _message(message))
            for _, _, name, timestamp, message, *_ in found.states
        ],
        indent=2,
    )
    if found.tasks:
        yield _tasks(found, now)
    yield from _end(found)


def _facts(found: _Found, now: int) -> str:
    run = found.run
    state = run.state
    lines = [
        ("flow", text.printable(run.flow_name)),
        ("id", str(run.id)),
        ("state", text.printable(state.name) if state is not None else "-"),
        ("started", text.moment(run.start_time, exact=True)),
        ("ended", text.moment(run.end_time, exact=True)),
        ("duration", text.duration(text.elapsed(run.start_time, run.end_time, now))),
        ("attempts", str(run.run_count)),
    ]
    if run.flow_version is not None:
        lines.append(("version", text.printable(run.flow_version)))
    if run.tags:
        lines.append(("tags", text.printable(", ".join(run.tags))))
    if found.owner is not None and state is not None and not state.is_final():
        _, host, _, pid, *_ = found.owner
        lines.append(("process", text.printable(f"{pid} on {host}")))
    if run.parent_task_run_id is not None:
        lines.append(("called by", f"task run {run.parent_task_run_id}"))
    if state is not None and state.type in _RESUMABLE:
        lines.append(("resume", f"its flow, by .resume({str(run.id)!r})"))
    facts = "\n".join(f"  {name:<9} {value}" for name, value in lines)
    return f"Flow run {text.printable(run.name)}\n{facts}"


def _parameters(run: FlowRunRow) -> Iterator[str]:
    """Written from the stored text; nothing is decoded into what it was."""
    stored = msgspec.json.decode(run.parameters, type=dict[str, msgspec.Raw])
    for name, raw in stored.items():
        yield f"{text.printable(name)} = {values.preview(bytes(raw), _WIDEST_VALUE)}"
    for name, type_name in run.unstored_parameters.items():
        yield text.printable(f"{name}: a {type_name}, not stored")


def _tasks(found: _Found, now: int) -> str:
    counts = ", ".join(
        f"{how_many} {text.printable(name or 'without a state')}"
        for name, how_many in found.task_counts
    )
    rows = [
        (
            text.cut(name, _WIDEST_NAME),
            text.cut(state_name or "-", _WIDEST_NAME),
            text.moment(start_time),
            text.duration(text.elapsed(start_time, end_time, now)),
            str(run_count),
            _message(message),
        )
        for _, name, _, state_name, start_time, end_time, run_count, message in found.tasks
    ]
    head = ("NAME", "STATE", "STARTED", "DURATION", "ATTEMPTS", "MESSAGE")
    shown = f"Tasks: {counts}\n{text.table(head, rows, indent=2)}"
    left_out = sum(how_many for _, how_many in found.task_counts) - len(rows)
    return f"{shown}\n  and {left_out} more; see --tasks" if left_out > 0 else shown


def _end(found: _Found) -> Iterator[str]:
    """What the run ended with: its error, or its value."""
    if not found.states:
        return
    *_, data, data_format = found.states[-1]
    if data is None:
        return
    if values.is_outside(data_format):
        yield f"Result\n  {text.printable(described(bytes(data), data_format))}"
        return
    if data_format not in (ERROR, VALUE):
        # Reading it is what a person has to ask for: it may run code.
        yield f"Result\n  {len(data):,} bytes, written by {text.printable(data_format)}"
        return
    shown = text.block(values.preview(bytes(data), _WIDEST_VALUE), indent=2)
    if data_format != ERROR:
        yield f"Result\n{shown}"
        return
    try:
        error = msgspec.json.decode(data, type=dict[str, str])
    except (ValueError, RecursionError):
        # Not written by us; what can be shown of it is shown.
        yield f"Error\n{shown}"
        return
    yield f"Error\n{text.block(error.get('traceback') or error.get('message') or '-', indent=2)}"


def _message(message: str | None) -> str:
    return "" if message is None else text.cut(message, _WIDEST_MESSAGE)

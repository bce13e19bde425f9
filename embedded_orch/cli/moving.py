"""``embedded-orch cancel ID``, ``pause ID``, ``resume ID`` and ``signal ID NAME``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors
from embedded_orch.cli import text
from embedded_orch.cli.opening import engine_of, opened_for_runs
from embedded_orch.cli.run_ids import check_digits, flow_run_id
from embedded_orch.collections import FlowRuns
from embedded_orch.engine.effects import drive
from embedded_orch.engine.pausing import PauseRequest, resume, suspend_other
from embedded_orch.engine.waits import send
from embedded_orch.process import Process

if TYPE_CHECKING:
    from collections.abc import Generator
    from uuid import UUID

    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.engine.engine import Engine


def cancel(arguments: Arguments) -> int:
    """Cancel a flow run."""
    with _found(arguments) as (engine, run_id):
        FlowRuns(engine).cancel(run_id)
        _report(engine, run_id)
    return 0


def pause(arguments: Arguments) -> int:
    """Suspend a flow run, at the next task that it calls."""
    request = PauseRequest(
        key=None, timeout_seconds=None, poll_seconds=1.0, wanted=None, is_suspension=True
    )
    with _found(arguments) as (engine, run_id):
        drive(suspend_other(engine, run_id, request))
        _report(engine, run_id)
    return 0


def let_go_on(arguments: Arguments) -> int:
    """Resume a paused flow run."""
    given = None if arguments.input is None else _fields(arguments.input)
    with _found(arguments) as (engine, run_id):
        drive(resume(engine, run_id, given))
        _report(engine, run_id)
    return 0


def send_signal(arguments: Arguments) -> int:
    """Send a flow run a signal; 1 when it was sent one of that name before."""
    value = None
    if arguments.value is not None:
        try:
            value = msgspec.json.decode(arguments.value)
        except msgspec.DecodeError as error:
            raise errors.RunInputError(
                f"the value {arguments.value} is no JSON: {error}; a text has double quotes"
            ) from error
    with _found(arguments) as (engine, run_id):
        is_first = drive(send(engine, run_id, arguments.signal, value))
    if not is_first:
        print(f"flow run {run_id} has got the signal {arguments.signal} before, which stands")
        return 1
    print(f"flow run {run_id} has got the signal {arguments.signal}")
    return 0


def _fields(word: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(word, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise errors.RunInputError(f"--input is no JSON object: {error}") from error


@contextmanager
def _found(arguments: Arguments) -> Generator[tuple[Engine, UUID]]:
    check_digits(arguments.id)
    process = Process()
    with opened_for_runs(arguments.db, process) as shared:
        url = shared.database.url
        run_id = shared.database.read(lambda tx: flow_run_id(tx, arguments.id, url))
        yield engine_of(shared, process), run_id


def _report(engine: Engine, run_id: UUID) -> None:
    run = FlowRuns(engine).get(run_id)
    print(text.printable(f"{run.name} {run.id} {run.state_name}"))

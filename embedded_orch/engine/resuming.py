"""Continuing a flow run that was interrupted, where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors, values
from embedded_orch.engine.effects import Read
from embedded_orch.engine.flow_call import FlowCall
from embedded_orch.engine.pause_deadlines import NEVER_RESUMED, expire_pauses
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs, processes, task_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.records import Choices
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.states import State
    from embedded_orch.store.flow_runs import FlowRunRow
    from embedded_orch.store.processes import ProcessRow
    from embedded_orch.store.task_runs import RecordedCall

    Owned = tuple[FlowRunRow, tuple[ProcessRow, bool] | None]
    # The id or the name of a task run, or the module and qualified name of a task.
    RerunFrom = UUID | str

_AT_WORK = frozenset(
    {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING}
)


def resume_run(
    engine: Engine,
    flow: FlowSpec,
    run_id: UUID,
    parameters: Mapping[str, Any],
    *,
    bound: Mapping[str, Any] | None = None,
    choices: Choices | None = None,
    rerun_from: RerunFrom | None = None,
    is_automatic: bool = False,
) -> Steps[State]:
    """Continue a run: its function is called again, and calls that completed are not.

    Args:
        engine: on the database of the run.
        flow: whose run it is.
        run_id: the run.
        parameters: values for those parameters that could not be stored.
        bound: more of them, for a method its object; what is on record comes before them.
        choices: what is done about changes; what the flow says when not given.
        rerun_from: from which call on what has completed is run again.
        is_automatic: whether nobody asked for it by hand.

    Raises:
        RunNotFound: no flow run has this id, or it has no such call on record.
        RunNotResumable: it is another flow's, or runs in a living process.
        FlowPauseTimeout: it was paused, and its time is over.
        ParametersNeeded: it was called with values that could not be stored.
    """
    if run_id in (yield from expire_pauses(engine)):
        raise errors.FlowPauseTimeout(f"flow run {run_id}: {NEVER_RESUMED}")
    found: Owned = yield Read(engine.database, lambda tx: owned_run(tx, run_id))
    run, owner = found
    if run.flow_name != flow.name:
        raise errors.RunNotResumable(
            f"{_label(run)} is a run of the flow {run.flow_name!r}, not of {flow.name!r}; resume "
            f"it with that flow"
        )
    if run.state is not None and run.state.type is StateType.COMPLETED and rerun_from is None:
        return run.state
    refuse_running(engine, run, owner)
    _refuse_unanswered(run)
    unstored = run.unstored_parameters
    spare = {name: value for name, value in (bound or {}).items() if name in unstored}
    arguments = _arguments(flow, run, {**spare, **parameters}, _label(run))
    first = None if rerun_from is None else (yield from _first_call(engine, run, rerun_from))
    return (
        yield from take_over_steps(
            engine,
            flow,
            run,
            arguments,
            choices=choices,
            rerun_from=first,
            is_automatic=is_automatic,
        )
    )


def _first_call(engine: Engine, run: FlowRunRow, rerun_from: RerunFrom) -> Steps[UUID]:
    """The first call of a run that is meant: by its id, or by the task that it is a call of."""
    calls: list[RecordedCall] = yield Read(
        engine.database, lambda tx: task_runs.recorded_calls(tx, flow_run_id=run.id)
    )
    for call in calls:
        if rerun_from in (call.id, call.task_key, call.name):
            return call.id
    known = sorted({call.task_key for call in calls})
    raise errors.RunNotFound(
        f"{_label(run)} has no call of {rerun_from} on record; it has calls of "
        f"{', '.join(known) or 'no task'}"
    )


def refuse_running(engine: Engine, run: FlowRunRow, owner: tuple[ProcessRow, bool] | None) -> None:
    """Refuse a run that a living process runs.

    Args:
        engine: that would take it over.
        run: the run.
        owner: the process that it names, and whether that is known to have ended.

    Raises:
        RunNotResumable: it runs.
    """
    if owner is None or (run.state is not None and run.state.is_final()):
        return
    if runs_in_living_process(engine, run, owner):
        row, _ = owner
        if run.state is not None and run.state.is_paused():
            raise errors.RunNotResumable(
                f"{_label(run)} is paused, and process {row.pid} on {row.host} waits for it; let "
                f"it go on by resume_flow_run()"
            )
        raise errors.RunNotResumable(
            f"{_label(run)} is running in process {row.pid} on {row.host}; wait for it, or stop it "
            f"first"
        )


def _refuse_unanswered(run: FlowRunRow) -> None:
    """Refuse a paused run that waits for input, or whose time is over."""
    state = run.state
    if state is not None and state.is_paused() and state.state_details.run_input_keyset:
        raise errors.RunNotResumable(
            f"{_label(run)} is {state.name} and waits for input; give it by "
            f"resume_flow_run(run_id, run_input={{...}}) first"
        )


def runs_in_living_process(
    engine: Engine, run: FlowRunRow, owner: tuple[ProcessRow, bool] | None
) -> bool:
    """Whether the process that a run names as its owner, if any, lives and is at it."""
    if owner is None:
        return False
    row, has_ended = owner
    return not has_ended and engine.owner.is_running(run.id, row)


def take_over_steps(
    engine: Engine,
    flow: FlowSpec,
    run: FlowRunRow,
    arguments: Mapping[str, Any],
    *,
    caller: FlowRunContext | None = None,
    choices: Choices | None = None,
    rerun_from: UUID | None = None,
    is_automatic: bool = False,
) -> Steps[State]:
    """Take a run over that nobody runs, and run it again.

    Args:
        engine: that runs it.
        flow: whose run it is.
        run: the run.
        arguments: what it is called with.
        caller: the flow run that calls it, if any.
        choices: what is done about changes; those of the caller when not given.
        rerun_from: the task run from which on what has completed is run again.
        is_automatic: whether nobody asked for it by hand.
    """
    call = FlowCall(engine, flow, arguments, run_id=run.id, caller=caller, choices=choices)
    # A caller that is resumed has not answered the pause of what it called: by way of Crashed the
    # run comes to its pause again.
    is_left_paused = caller is not None and run.state is not None and run.state.is_paused()
    return (
        yield from call.take_over_and_run(
            name=run.name,
            tags=run.tags,
            epoch=run.epoch,
            owner_died=is_left_paused or (_is_at_work(run) and run.owner_id is not None),
            is_automatic=is_automatic,
            rerun_from=rerun_from,
        )
    )


def _is_at_work(run: FlowRunRow) -> bool:
    return run.state is None or run.state.type in _AT_WORK


def _label(run: FlowRunRow) -> str:
    return f"flow run {run.name} ({run.id})"


def resume_or_start(
    engine: Engine,
    flow: FlowSpec,
    arguments: Mapping[str, Any],
    *,
    choices: Choices | None,
    rerun_from: RerunFrom | None,
) -> Steps[State]:
    """Continue the newest unfinished run of a flow with equal parameters, or start one."""
    digest = values.hash_inputs(arguments)
    run_id: UUID | None = yield Read(
        engine.database,
        lambda tx: flow_runs.unfinished_with_parameters(
            tx, flow_name=flow.name, parameters_hash=digest
        ),
    )
    if run_id is None:
        return (yield from FlowCall(engine, flow, arguments).create_and_run())
    steps = resume_run(
        engine, flow, run_id, {}, bound=arguments, choices=choices, rerun_from=rerun_from
    )
    return (yield from steps)


def owned_run(tx: Transaction, run_id: UUID) -> Owned:
    """A run, and the process that it names as its owner.

    Raises:
        RunNotFound: no flow run has this id.
    """
    found = flow_runs.get_flow_runs(tx, [run_id])
    if not found:
        raise errors.RunNotFound(f"no flow run has the id {run_id} in this database")
    return found[0], owner_of(tx, found[0])


def owner_of(tx: Transaction, run: FlowRunRow) -> tuple[ProcessRow, bool] | None:
    """The process that a run names as its owner, if any, and whether it is known to have ended."""
    return None if run.owner_id is None else processes.get(tx, id=run.owner_id)


def _arguments(
    flow: FlowSpec, run: FlowRunRow, given: Mapping[str, Any], label: str
) -> dict[str, Any]:
    """The parameters of the run: those on record, and those given for the others."""
    needed = [name for name in run.unstored_parameters if name not in given]
    if needed:
        wanted = ", ".join(f"{name} (a {run.unstored_parameters[name]})" for name in needed)
        raise errors.ParametersNeeded(
            f"{label} was called with values that could not be stored: {wanted}; give them again: "
            f"{flow.name}.resume(run_id, parameters={{{needed[0]!r}: ...}})"
        )
    stored = values.decode(run.parameters)
    assert isinstance(stored, dict)
    surplus = sorted(set(given) - set(run.unstored_parameters))
    if surplus:
        raise errors.ParameterBindError(
            f"{label} has {', '.join(map(repr, surplus))} on record, or no such parameter; a "
            f"resumed run goes on with what it was called with"
        )
    found = {**stored, **given}
    unknown = sorted(set(found) ^ set(flow.signature.parameters))
    if unknown:
        return _fitted(flow, found, label)
    return found


def _fitted(flow: FlowSpec, found: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The parameters of a run whose flow has other parameters now."""
    gone = sorted(set(found) - set(flow.signature.parameters))
    new = [name for name in flow.signature.parameters if name not in found]
    without = [name for name in new if name not in flow.signature.defaults]
    if gone or without:
        raise errors.RunNotResumable(
            f"{label} was called with {', '.join(found) or 'no parameters'}, and {flow.name} takes "
            f"{', '.join(flow.signature.parameters) or 'none'} now; start a new run"
        )
    return {**found, **{name: flow.signature.defaults[name] for name in new}}

"""What processes left that are gone: runs to set right, to resume, and hooks to call."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.engine.checking import check_max_resumes
from embedded_orch.engine.effects import Read, Write, drive
from embedded_orch.engine.explaining import explaining
from embedded_orch.engine.explanation import Blocker, Explanation, OwnerFacts, Reason
from embedded_orch.engine.owed_hooks import call_owed_hooks
from embedded_orch.engine.resuming import owned_run
from embedded_orch.engine.watching import tell_moved
from embedded_orch.filters import as_uuid
from embedded_orch.flows import Flow
from embedded_orch.store import flow_runs, owed_hooks, resumes, waits
from embedded_orch.store.recovering import NOTHING, Recovered, root_of, take_away

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.resuming import Owned
    from embedded_orch.orchestrator import Orchestrator
    from embedded_orch.runs import FlowRun

__all__ = [
    "Blocker",
    "Explanation",
    "OwnerFacts",
    "Reason",
    "Recovered",
    "explaining_run",
    "recovering",
    "resume_crashed",
    "run_owed_hooks",
]

_log = logging.getLogger("embedded_orch.recovery")


def recovering(engine: Engine, run_id: UUID | str | None, *, force: bool) -> Steps[Recovered]:
    """The steps of :meth:`Orchestrator.recover`."""
    if run_id is None:
        if force:
            raise errors.ConfigurationError(
                "force=True takes one run from the process that runs it; say which: "
                "recover(run_id, force=True)"
            )
        return (yield from engine.recovery.sweeping())
    id = as_uuid(run_id, "flow run")
    found: Owned = yield Read(engine.database, lambda tx: _root_with_owner(tx, id))
    run, owner = found
    if owner is None or owner[1] or (run.state is not None and run.state.is_final()):
        return NOTHING
    row, _ = owner
    if not engine.owner.is_alive(row):
        return (yield from engine.recovery.burying(row))
    if force:
        message = f"taken by force from process {row.pid} on {row.host}, which ran it"
        return (yield from _taking(engine, run.id, message))
    if not engine.owner.is_running(run.id, row):
        message = "how it ended in its process could not be recorded"
        return (yield from _taking(engine, run.id, message))
    raise errors.RunNotRecoverable(
        f"flow run {run.name} ({run.id}) is run by process {row.pid} on {row.host}, which lives; "
        f"recover(run_id, force=True) takes it, if that process is stopped or hangs"
    )


def explaining_run(engine: Engine, run_id: UUID | str) -> Steps[Explanation]:
    """The steps of :meth:`Orchestrator.why`."""
    return (yield from explaining(engine, as_uuid(run_id, "run")))


def _root_with_owner(tx: Transaction, run_id: UUID) -> Owned:
    """A run, or the one that called it, which shares its fate; and who owns it."""
    owned_run(tx, run_id)
    return owned_run(tx, root_of(tx, run_id=run_id))


def _taking(engine: Engine, run_id: UUID, message: str) -> Steps[Recovered]:
    process = engine.process
    now, ended_id = process.now(), process.new_id()
    found: Recovered = yield Write(
        engine.database,
        lambda tx: take_away(
            tx, run_id=run_id, ended_id=ended_id, now=now, new_id=process.new_id, message=message
        ),
    )
    for id in (*found.crashed, *found.resumable):
        # It may be this very process that runs it.
        tell_moved(engine.room, id)
    return found


def resume_crashed(
    orchestrator: Orchestrator, flows: Sequence[Flow[..., Any]], *, max_resumes: int | None = None
) -> list[FlowRun]:
    """Resume what waits for it; see :meth:`Orchestrator.resume_crashed`."""
    if max_resumes is not None:
        check_max_resumes(max_resumes)
    orchestrator.engine.recovery.sweep()
    found = orchestrator.database.read(flow_runs.to_resume)
    resumed = _resume_each(orchestrator, found, flows, is_counted=True, max_resumes=max_resumes)
    resumed += _resume_what_is_due(orchestrator, flows)
    run_owed_hooks(orchestrator, flows)
    return [orchestrator.flow_runs.get(run_id) for run_id in resumed]


def resume_due(orchestrator: Orchestrator, flows: Sequence[Flow[..., Any]]) -> list[FlowRun]:
    """Resume what was suspended for something that has come; see :class:`Orchestrator`."""
    resumed = _resume_what_is_due(orchestrator, flows)
    return [orchestrator.flow_runs.get(run_id) for run_id in resumed]


def _resume_what_is_due(orchestrator: Orchestrator, flows: Sequence[Flow[..., Any]]) -> list[UUID]:
    now = orchestrator.engine.process.now()
    found = orchestrator.database.read(lambda tx: waits.due(tx, now=now))
    return _resume_each(orchestrator, found, flows, is_counted=False)


def _resume_each(
    orchestrator: Orchestrator,
    found: Sequence[tuple[UUID, str, str | None]],
    flows: Sequence[Flow[..., Any]],
    *,
    is_counted: bool,
    max_resumes: int | None = None,
) -> list[UUID]:
    """Resume runs, given with the names and entry points of their flows, one after the other."""
    resumed: list[UUID] = []
    for run_id, flow_name, entrypoint in found:
        flow = _flow_for(flow_name, entrypoint, flows)
        if flow is None:
            _log.warning(
                "flow run %s of %s waits to be resumed, and its flow (%s) is not imported here; "
                "import it, or give it to resume_crashed()",
                run_id,
                flow_name,
                entrypoint,
            )
            continue
        if is_counted:
            limit = flow.options.max_resumes if max_resumes is None else max_resumes
            if _gave_up(orchestrator, run_id, limit):
                _log.warning(
                    "flow run %s of %s was resumed in vain (max_resumes=%d): Crashed for good",
                    run_id,
                    flow_name,
                    limit,
                )
                continue
        try:
            flow.resume_on(orchestrator, run_id, is_automatic=is_counted)
        except (errors.RunNotResumable, errors.ParametersNeeded) as error:
            # Another process was faster, or a person is needed: the others do not wait for it.
            _log.warning("flow run %s of %s is not resumed: %s", run_id, flow_name, error)
            continue
        resumed.append(run_id)
    return resumed


def _gave_up(orchestrator: Orchestrator, run_id: UUID, limit: int) -> bool:
    process = orchestrator.engine.process
    now = process.now()
    return orchestrator.database.write(
        lambda tx: resumes.give_up(tx, run_id=run_id, limit=limit, now=now, new_id=process.new_id)
    )


def run_owed_hooks(orchestrator: Orchestrator, flows: Sequence[Flow[..., Any]]) -> list[FlowRun]:
    """Call what is owed; see :meth:`Orchestrator.run_owed_hooks`."""
    engine = orchestrator.engine
    engine.recovery.sweep()
    called: list[UUID] = []
    for due in orchestrator.database.read(owed_hooks.due):
        flow = _flow_for(due.flow_name, due.entrypoint, flows)
        if flow is None:
            _log.info(
                "the hooks of flow run %s of %s are owed, and its flow (%s) is not imported here",
                due.flow_run_id,
                due.flow_name,
                due.entrypoint,
            )
        elif drive(call_owed_hooks(engine, flow.spec, due)):
            called.append(due.flow_run_id)
    return [orchestrator.flow_runs.get(run_id) for run_id in called]


def _flow_for(
    name: str, entrypoint: str | None, flows: Sequence[Flow[..., Any]]
) -> Flow[..., Any] | None:
    for flow in flows:
        if flow.name == name:
            return flow
    module, _, path = (entrypoint or "").partition(":")
    # Only what is imported already: a database must not be able to make this process import.
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, Flow) and found.name == name else None

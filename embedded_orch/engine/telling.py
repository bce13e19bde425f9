"""What the engine says about a run, as lines of the run.

They go through the loggers of runs as all lines do, so the handlers of the program get them. Where
nobody listens but our own handler, no record is made of them: that is most of what a line costs.

The last line of a flow run is stored with its end, by the same transaction: other processes see it
as soon as the end itself, and nothing more has to be written for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedded_orch.engine.run_logging import (
    FLOW_RUNS,
    KEPT,
    Audience,
    audience_of,
    kept,
    listen,
    logger_of,
    show,
)
from embedded_orch.process import id_after
from embedded_orch.states import TERMINAL_TYPES, StateType
from embedded_orch.store import logs

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext, RunContext, TaskRunContext
    from embedded_orch.orchestration.values import Decision, Proposal
    from embedded_orch.states import State

_flow_runs = logging.getLogger(FLOW_RUNS)


def log_beginning(run: FlowRunContext) -> None:
    """A flow run begins, whose call has seen to it that we listen."""
    how = f"begins: flow {run.flow.name!r}"
    if run.caller is not None:
        how += f", called by {run.caller.name}"
    if run.run_count > 1:
        how += f", attempt {run.run_count}"
    if not _flow_runs.isEnabledFor(logging.INFO):
        return
    audience = audience_of(_flow_runs)
    if audience is Audience.OTHERS or audience is Audience.UNKNOWN:
        logger_of(run).log(logging.INFO, how)
        return
    text = kept(how)
    run.engine.logs.put(logging.INFO, FLOW_RUNS, text, run.run_id, None)
    if audience is Audience.TERMINAL:
        show(run.start_time, logging.INFO, run.label, text)


def log_retry(run: RunContext, message: str | None) -> None:
    """An attempt at a run failed, and there will be another."""
    logger_of(run).warning("attempt %d failed, and is retried: %s", run.run_count, message)


def log_end(run: FlowRunContext, state: State) -> None:
    """A flow run has ended, and its last line is not stored."""
    # Its function may have configured logging.
    listen()
    level, text = _how_it_ended(run, run.engine.process.now(), state)
    logger_of(run).log(level, "%s", text)
    # It is the last line for now: other processes see it as soon as the end itself.
    run.engine.logs.hand_over()


def log_failure(run: TaskRunContext, message: str | None) -> None:
    """A task run has failed for good."""
    logger_of(run).error("fails: %s", message)


class LastLine:
    """The line that tells how a flow run has ended, on its way into the database.

    Args:
        run: the attempt that ends.
    """

    __slots__ = ("_audience", "_now", "_run", "_said", "_stored_with")

    def __init__(self, run: FlowRunContext) -> None:
        # The state that it was stored with, by a transaction that need not be committed.
        self._stored_with: UUID | None = None
        self._run = run
        self._now = run.engine.process.now()
        self._said: tuple[int, str] = (0, "")
        self._audience = audience_of(_flow_runs)
        if self._audience is Audience.UNKNOWN:
            # Its function may have configured logging, and taken our handler away.
            listen()
            self._audience = audience_of(_flow_runs)

    def store(self, tx: Transaction, decision: Decision) -> None:
        """Store it, if the run has ended by a decision.

        Not where a filter of the program's may change it, or keep it out: then it goes as others.
        """
        if decision.is_repeat:
            # The transaction that stored the state stored the line.
            return
        self._stored_with = None
        state = decision.proposal
        if state is None or state.type not in TERMINAL_TYPES:
            return
        level, text = self._said = _how_it_ended(self._run, self._now, state)
        if self._audience is Audience.UNKNOWN or not _flow_runs.isEnabledFor(level):
            return
        # After the state: the id next to it is that of the state of the task run that goes along.
        id = f"{id_after(state.id, 2).int:032x}"
        row = logs.NewLogRow(self._now, id, level, FLOW_RUNS, kept(text), None)
        logs.append(tx, self._run.run_id, [row], now=self._now)
        self._stored_with = state.id

    def is_stored_with(self, state: State) -> bool:
        """Whether it was stored with a state that the run has ended in."""
        return self._stored_with == state.id

    def tell(self) -> None:
        """Show it, or have the program's handlers do so: it is stored, and its run has ended."""
        level, text = self._said
        if self._audience is Audience.TERMINAL:
            show(self._now, level, self._run.label, kept(text))
        elif self._audience is Audience.OTHERS:
            logger_of(self._run, KEPT).log(level, "%s", text)


def _how_it_ended(run: FlowRunContext, now: int, state: State | Proposal) -> tuple[int, str]:
    """The level and the text of the line that tells of an end."""
    seconds = (now - run.start_time) / 1e6
    is_completed = state.type is StateType.COMPLETED
    why = "" if is_completed or not state.message else f": {state.message}"
    level = logging.INFO if is_completed else logging.ERROR
    return level, f"ends as {state.name} after {seconds:.2f} s{why}"

"""What a run that was attempted before has on record, and what of it the code still asks for.

The records are read once, when the attempt begins; a run that was not attempted before has none. A
call finds its record by its inputs (:mod:`embedded_orch.engine.identity`), or by its place: the
how-manieth call of its task that its caller makes. Which one, and whether a change of the code or
of the calls stops the run, is chosen for the flow or for one resume.

Three things are seen as changes, each for the calls of one caller, since the calls inside of a task
that is not run again are not made again:

- a call whose task has another source than when it was recorded;
- a recorded, completed call that nobody asks for before the function ends;
- a new call where one of the same task with other inputs is on record.

The last two are certain only at the end: in whatever order threads bring the calls, what is on
record may still be asked for. ``strict`` does not wait for that, and takes the order in which calls
are made for part of the record: a call that would run, while a completed one that comes before it
was not made, stops the run.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from embedded_orch.engine.effects import Read
from embedded_orch.engine.options import Match, OnChange
from embedded_orch.engine.read_ahead import RecordedValues
from embedded_orch.engine.run_logging import logger_of
from embedded_orch.errors import Change, RunChanged
from embedded_orch.store import task_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.store.task_runs import RecordedCall


class Choices(msgspec.Struct, frozen=True):
    """What was chosen for one resume; None leaves it to the flow."""

    on_change: OnChange | None = None
    match: Match | None = None


class Records:
    """The records of one attempt at a flow run. Any thread may use it.

    Args:
        calls: what is on record, in the order in which the calls were made.
        values: what the completed ones have returned.
        match: how calls find their records.
        on_change: what a change leads to.
        run: name and id of the run, for people.
        tell: takes what the user is to be told, once for each task.
        made: how many calls of a task a caller has made in this attempt.
    """

    def __init__(
        self,
        calls: Iterable[RecordedCall],
        *,
        values: RecordedValues,
        match: Match,
        on_change: OnChange,
        run: str,
        tell: Callable[[str], object],
        made: Callable[[UUID | None, str], int],
    ) -> None:
        self.values = values
        self._by_position = match == "position"
        self._is_strict = on_change == "strict"
        self._run = run
        self._tell = tell
        self._made = made
        self._calls = list(calls)
        self._by_key: dict[tuple[str, str], RecordedCall] = {}
        self._by_number: dict[tuple[UUID | None, str, int], RecordedCall] = {}
        # Not both where one will do: a run may have a hundred thousand calls.
        if not self._by_position:
            self._by_key = {(call.task_key, call.dynamic_key): call for call in self._calls}
        if self._by_position or self._is_strict:
            self._by_number = {(c.parent_id, c.task_key, c.call_number): c for c in self._calls}
        self._lock = threading.Lock()
        self._asked: set[UUID] = set()
        self._rerun: set[UUID | None] = {None}
        # The new calls where there are completed ones of the same task and caller.
        self._new: dict[tuple[UUID | None, str], list[str]] = {
            (call.parent_id, call.task_key): [] for call in self._calls if call.is_completed
        }
        self._told: set[str] = set()
        # Of each caller the completed calls in their order, and how many of them were made again.
        self._completed: dict[UUID | None, list[RecordedCall]] = {}
        self._passed: dict[UUID | None, int] = {}
        if self._is_strict:
            for call in self._calls:
                if call.is_completed:
                    self._completed.setdefault(call.parent_id, []).append(call)
        self.refusal: RunChanged | None = None

    def find(
        self,
        task_key: str,
        parent: UUID | None,
        *,
        key: str,
        number: int,
        source_hash: str | None,
        name: str,
    ) -> RecordedCall | None:
        """The record of a call that is being made, if there is one.

        Args:
            task_key: of the task.
            parent: the task run that makes the call, if any.
            key: which call it is, by its inputs.
            number: which call of its task by the same caller it is.
            source_hash: of the task's source.
            name: of the call, for people.

        Raises:
            RunChanged: the run is not to go on with changes, and this is one.
        """
        if self._by_position:
            found = self._by_number.get((parent, task_key, number))
        else:
            found = self._by_key.get((task_key, key))
        with self._lock:
            if found is None:
                if (parent, task_key) in self._new:
                    self._new[parent, task_key].append(name)
            else:
                self._asked.add(found.id)
                if not found.is_completed:
                    self._rerun.add(found.id)
            if self._is_strict:
                changes = self._changes_before(
                    found, task_key, parent, number=number, source_hash=source_hash, name=name
                )
                if changes:
                    raise self._refused(changes)
                return found
            text = self._what_changed_in(found, source_hash)
        if text is not None:
            self._tell(text)
        return found

    def runs_again(self, found: RecordedCall) -> None:
        """A call that has completed is made again all the same: its value cannot be had."""
        with self._lock:
            self._rerun.add(found.id)

    def end(self, *, has_failed: bool) -> None:
        """The function has ended, and all that it submitted: tell what of the record stays unused.

        Args:
            has_failed: it did not come to its end, so that it may have had no occasion to ask.

        Raises:
            RunChanged: the run is not to go on with changes, and has some.
        """
        if self.refusal is not None:
            # Also when the code of the flow has caught it.
            raise self.refusal
        changes = self._changed_calls(only_with_new=has_failed)
        if not changes:
            return
        if self._is_strict and not has_failed:
            raise self._refused(changes)
        for change in changes:
            self._tell(f"{change}; what is on record and was not asked for is not used")

    # -- what has changed ------------------------------------------------------------------------

    def _what_changed_in(self, found: RecordedCall | None, source_hash: str | None) -> str | None:
        if found is None or not found.is_completed or not _differs(found, source_hash):
            return None
        if found.task_key in self._told:
            return None
        self._told.add(found.task_key)
        change = _changed_code(found, source_hash)
        return f"{change}; finished results stand"

    def _changes_before(
        self,
        found: RecordedCall | None,
        task_key: str,
        parent: UUID | None,
        *,
        number: int,
        source_hash: str | None,
        name: str,
    ) -> list[Change]:
        """What keeps a strict run from going on with a call; the lock is held."""
        if found is not None and _differs(found, source_hash):
            return [_changed_code(found, source_hash)]
        if found is not None and found.is_completed:
            return []
        other = self._by_number.get((parent, task_key, number))
        if found is None and other is not None and other.is_completed:
            return [Change(task_key, "calls", (other.name,), (name,))]
        missed = self._first_missed(parent)
        if missed is None or (found is not None and found.id < missed.id):
            return []
        return [Change(missed.task_key, "calls", (missed.name,), ())]

    def _first_missed(self, parent: UUID | None) -> RecordedCall | None:
        """The first completed call of a caller that was not made again yet."""
        completed = self._completed.get(parent, ())
        passed = self._passed.get(parent, 0)
        while passed < len(completed):
            call = completed[passed]
            if self._made(parent, call.task_key) <= call.call_number:
                break
            passed += 1
        self._passed[parent] = passed
        return completed[passed] if passed < len(completed) else None

    def _changed_calls(self, *, only_with_new: bool) -> list[Change]:
        unused: dict[tuple[UUID | None, str], list[str]] = {}
        retried = {call.id for call in self._calls if call.run_count > 1}
        for call in self._calls:
            is_due = call.parent_id in self._rerun and call.parent_id not in retried
            if call.is_completed and call.id not in self._asked and is_due:
                unused.setdefault((call.parent_id, call.task_key), []).append(call.name)
        return [
            Change(place[1], "calls", tuple(names), tuple(self._new[place]))
            for place, names in unused.items()
            if self._new[place] or not only_with_new
        ]

    def _refused(self, changes: Sequence[Change]) -> RunChanged:
        listed = "; ".join(map(str, changes))
        self.refusal = RunChanged(
            f"{self._run} has changed since it was recorded, and stops, since it is strict: "
            f"{listed}. Resume it with on_change='keep' to have finished results stand, with "
            f"match='position' if inputs never repeat, or with rerun_from= a task",
            tuple(changes),
        )
        return self.refusal


def _differs(found: RecordedCall, source_hash: str | None) -> bool:
    return None not in (found.source_hash, source_hash) and found.source_hash != source_hash


def _changed_code(found: RecordedCall, source_hash: str | None) -> Change:
    recorded, came = (found.source_hash or "")[:8], (source_hash or "")[:8]
    return Change(found.task_key, "code", (f"{found.name} with source {recorded}",), (came,))


def records_of(context: FlowRunContext) -> Steps[Records]:
    """What the earlier attempts at a flow run have on record."""
    calls: list[RecordedCall] = yield Read(
        context.engine.database,
        lambda tx: task_runs.recorded_calls(tx, flow_run_id=context.run_id),
    )
    return Records(
        calls,
        values=RecordedValues(context.run_id),
        match=context.match,
        on_change=context.on_change,
        run=f"flow run {context.name} ({context.run_id})",
        tell=logger_of(context).warning,
        made=context.calls_made,
    )

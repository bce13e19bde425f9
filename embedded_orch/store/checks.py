"""Whether a database holds what it must: looked at as a whole, changing nothing.

Each check is a statement that returns what is wrong, a row for each thing. What of it can be mended
without guessing is said there too, and done by :mod:`embedded_orch.store.mending`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch.errors import MissingResult
from embedded_orch.store import mending, result_files
from embedded_orch.store.mending import Mend
from embedded_orch.times import datetime_from_microseconds

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

Row = tuple[Any, ...]

GRACE = 60_000_000
"""Microseconds for which something may be under way that would be wrong if it stayed so."""


def _always(remedy: str | None) -> Callable[[Row], str | None]:
    return lambda _: remedy


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it has to be.

    Attributes:
        check: the name of the check that found it.
        message: what is wrong, and with what.
        remedy: what ``repair`` does about it; None when it can do nothing.
        advice: what a person can do, where ``repair`` cannot.
        is_problem: False for what somebody may have meant, such as a state set by force.
    """

    check: str
    message: str
    remedy: str | None = None
    advice: str | None = None
    is_problem: bool = True

    def __str__(self) -> str:
        return self.message


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at.

    Attributes:
        name: of the check, for programs.
        what: what holds when nothing is found.
        statement: finds what is wrong, a row for each thing.
        describe: such a row as a sentence.
        remedy: what is done about it, as a sentence; None when nothing can be.
        mend: does it; it may do it for all that are alike.
        advice: what a person can do, where there is no ``mend``.
        is_problem: whether it is wrong in any case.
        takes: what the statement is given: how many rows, and before when.
        find: finds what is wrong in the place of the statement, at most so many things.
    """

    name: str
    what: str
    describe: Callable[[Row], str]
    statement: str = ""
    remedy: Callable[[Row], str | None] = _always(None)
    mend: Mend | None = None
    advice: str | None = None
    is_problem: bool = True
    takes: tuple[str, ...] = ("limit",)
    find: Callable[..., list[Row]] | None = None

    def rows(self, tx: Transaction, *, now: int, limit: int) -> list[Row]:
        """What is wrong, at most ``limit`` things."""
        if self.find is not None:
            return self.find(tx, limit)
        values = {"limit": limit, "before_timestamp": now - GRACE}
        return tx.rows(f"checks.{self.statement}", **{name: values[name] for name in self.takes})

    def finding(self, row: Row) -> Finding:
        """Such a row, for people."""
        remedy = self.remedy(row)
        return Finding(
            self.name,
            self.describe(row),
            remedy,
            None if remedy is not None else self.advice,
            self.is_problem,
        )


def all_checks() -> list[Check]:
    """Every check, those first that explain what the later ones find."""
    return [
        Check(
            name="damage",
            what="the database is not damaged",
            statement="damages",
            describe=lambda row: str(row[0]),
            advice=(
                "copy the file with its -wal to a safe place and restore a backup; what can still "
                "be read of it comes out of the .recover command of the sqlite3 shell"
            ),
            takes=(),
        ),
        Check(
            name="reference",
            what="every reference has its row",
            statement="broken_references",
            describe=_broken_reference,
            remedy=mending.remedy_of_reference,
            mend=mending.reference,
            advice="run `alter table ... validate constraint ...` on the server, which names them",
            takes=(),
        ),
        *(check for kind in ("flow_run", "task_run") for check in _checks_of_runs(kind)),
        *_checks_of_callers(),
        *_checks_of_slots(),
        *_checks_of_the_rest(),
    ]


def _checks_of_runs(kind: mending.Kind) -> list[Check]:
    word = kind.replace("_", " ")
    runs = f"{kind}s"
    return [
        Check(
            name=f"{kind}_state",
            what=f"the state of every {word} is the last of its history",
            statement=f"{runs}_beside_their_history",
            describe=lambda row: (
                f"{word} {row[1]} ({row[0]}): its state is {_state(*row[2:5])}, and its history "
                f"ends with {_state(*row[5:8])}"
            ),
            remedy=lambda row: (
                "its state is made the last of its history"
                if row[7] is not None
                else "its state is made its history"
            ),
            mend=mending.state_of(kind),
        ),
        Check(
            name=f"{kind}_end",
            what=f"a {word} has an end time when it has ended, and only then",
            statement=f"{runs}_with_wrong_end",
            describe=lambda row: (
                f"{word} {row[1]} ({row[0]}) is {row[2] or 'without a state'}, which does not go "
                f"with its end time"
            ),
            remedy=_always("its end time is made that of its state"),
            mend=mending.by_id(f"end_of_{kind}", kind),
        ),
        Check(
            name=f"{kind}_times",
            what=f"a {word} ends no sooner than it begins",
            statement=f"{runs}_ended_before_start",
            describe=lambda row: (
                f"{word} {row[1]} ({row[0]}) began at {_time(row[2])} and ended at {_time(row[3])}"
            ),
            remedy=_always("its beginning is made its end"),
            mend=mending.by_id(f"start_of_{kind}", kind),
        ),
        Check(
            name=f"{kind}_history",
            what=f"the history of every {word} is one that the rules allow",
            statement=f"steps_of_{runs}",
            describe=lambda row: (
                f"{word} {row[1]} ({row[0]}) went from {row[2]} to {row[3]} at {_time(row[4])}, "
                f"which no rule allows"
            ),
            advice="nothing, if somebody has set that state by force or by SQL; it is only noted",
            is_problem=False,
        ),
    ]


def _checks_of_callers() -> list[Check]:
    timed = ("limit", "before_timestamp")
    crashed = "it is set Crashed"
    return [
        Check(
            name="task_run_under_end",
            what="what a flow run that has ended called has ended too",
            statement="task_runs_under_an_end",
            describe=lambda row: (
                f"task run {row[1]} ({row[0]}) is {row[2]}, and its flow run {row[3]} is {row[4]}"
            ),
            remedy=_always(crashed),
            mend=mending.crash_task_run,
            takes=timed,
        ),
        Check(
            name="flow_run_under_end",
            what="flow runs whose caller has ended have ended too",
            statement="flow_runs_under_an_end",
            describe=lambda row: (
                f"flow run {row[1]} ({row[0]}) is {row[2]}, and the task run {row[3]} that called "
                f"it is {row[4]}"
            ),
            remedy=_always(crashed),
            mend=mending.crash_flow_run,
            takes=timed,
        ),
        Check(
            name="flow_run_of_nobody",
            what="what has not ended has a process, a time at which it is due, or waits",
            statement="flow_runs_of_nobody",
            describe=lambda row: (
                f"flow run {row[1]} ({row[0]}) is {row[2]}, and nothing will ever move it: no "
                f"process runs it, and it is due at no time"
            ),
            remedy=_always(crashed),
            mend=mending.crash_flow_run,
            takes=timed,
        ),
        Check(
            name="caller",
            what="the caller of every flow run is there",
            statement="callers_that_are_gone",
            describe=lambda row: f"flow run {row[1]} ({row[0]}) names a caller that is not there",
            remedy=_always("nobody called it any more"),
            mend=mending.by_id("caller_of_flow_run", "flow_run"),
        ),
    ]


def _checks_of_slots() -> list[Check]:
    return [
        Check(
            name="claim_of_dead",
            what="slots are held and waited for by processes that live",
            statement="claims_of_the_dead",
            describe=lambda row: (
                f"{row[3]} slot(s) of the concurrency limit {row[1]} are "
                f"{'held' if row[2] == 'HOLDING' else 'waited for'} by a process that has ended"
            ),
            remedy=_always("they are given back"),
            mend=mending.give_back_slots,
        ),
        Check(
            name="claim_of_ended_run",
            what="slots are held by task runs that have not ended",
            statement="claims_of_ended_runs",
            describe=lambda row: (
                f"{row[2]} slot(s) of the concurrency limit {row[1]} are held by the task run "
                f"{row[3]}, which has ended"
            ),
            remedy=_always("they are given back"),
            mend=mending.give_back_slots,
            takes=("limit", "before_timestamp"),
        ),
        Check(
            name="limit",
            what="no more slots of a limit are held than there are",
            statement="limits_overdrawn",
            describe=lambda row: (
                f"{row[3]} slots of the concurrency limit {row[1]} are held, and there are {row[2]}"
            ),
            advice="they come back with the runs that hold them; `orch.concurrency_limits.get(name)"
            ".holders` says which",
        ),
        Check(
            name="lock_of_dead",
            what="locks of cache keys are held by processes that live",
            statement="locks_of_the_dead",
            describe=lambda row: f"the cache key {row[0]} is locked by a process that has ended",
            remedy=_always("it is unlocked"),
            mend=mending.unlock,
        ),
    ]


def _checks_of_the_rest() -> list[Check]:
    return [
        Check(
            name="log",
            what="what was logged belongs to a run that is there",
            statement="logs_of_nobody",
            describe=lambda row: (
                f"{row[2]} line(s) were logged by {'task' if row[0] is None else 'flow'} run "
                f"{row[1] if row[0] is None else row[0]}, which is not there"
            ),
            remedy=_always("they are removed"),
            mend=mending.logs,
            takes=("limit", "before_timestamp"),
        ),
        Check(
            name="artifact_key",
            what="every key of artifacts names the newest of them",
            statement="keys_beside_their_artifacts",
            describe=lambda row: f"the artifact key {row[0]} does not name its newest artifact",
            remedy=lambda row: (
                "it is removed, as it has none" if row[2] is None else "it is made to name it"
            ),
            mend=mending.artifact_key,
        ),
        Check(
            name="result_file",
            what="every result that is in a file is there and whole",
            describe=lambda row: str(row[0]),
            advice="take it from a backup; a run that is resumed makes the call again",
            find=_lost_files,
        ),
        Check(
            name="default_queue",
            what="the default queue of every work pool is its own",
            statement="pools_with_foreign_queue",
            describe=lambda row: f"work pool {row[1]} has {row[2]} of another pool",
            remedy=_always("it gets the first of its own"),
            mend=mending.by_id("default_queue", "work_pool"),
        ),
    ]


def _broken_reference(row: Row) -> str:
    child, parent, how_many = row
    if not how_many:
        return f"a reference from {child} to {parent} was never checked (NOT VALID)"
    return f"{how_many} rows of {child} name a row of {parent} that is not there"


def _lost_files(tx: Transaction, limit: int) -> list[Row]:
    names = result_files.named(tx)
    folder = tx.places.folder
    if not names:
        return []
    if folder is None:
        said = f"{len(names)} results are in files of a folder that is not known here"
        return [(f"{said}; name it by EMBEDDED_ORCH_RESULT_FOLDER",)]
    found: list[Row] = []
    for name in names:
        try:
            folder.read(name)
        except MissingResult as error:
            found.append((str(error),))
            if len(found) == limit:
                break
    return found


def _state(name: str | None, type: str | None, timestamp: int | None) -> str:
    if timestamp is None:
        return "nothing"
    return f"{name} ({type}, {_time(timestamp)})"


def _time(microseconds: int) -> str:
    return datetime_from_microseconds(microseconds).isoformat()

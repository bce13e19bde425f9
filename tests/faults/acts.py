"""What brings each operation of the fault tests to its end, from wherever a fault has left it.

Each of these functions is called on a database where nothing is done yet, where something is half
done, or where all is done, and does what is missing as a user would: it begins, resumes, answers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio

from embedded_orch import Orchestrator, errors, resume_flow_run
from embedded_orch.db.migrations import Migration, migrations
from embedded_orch.engine import removing
from embedded_orch.exceptions import Pause
from tests.faults import watched_flows as flows
from tests.faults.invariants import problems
from tests.faults.run_records import asking_bare

if TYPE_CHECKING:
    from embedded_orch.db.statements import Dialect


def finish(called: Any, orch: Orchestrator) -> None:
    """Start or resume the one run of a flow; nothing when it is Completed."""
    if orch.flow_runs.count(flow_name=called.name, state_type="COMPLETED"):
        return
    if called.is_async:
        flows.told(anyio.run(called.resume))
    else:
        flows.told(called.resume())


def finish_cached(orch: Orchestrator) -> None:
    """One run that makes the result, and one that finds it."""
    finish(flows.storing, orch)
    finish(flows.hitting, orch)


def finish_suspended(orch: Orchestrator) -> None:
    """Suspend, answer, resume."""
    try:
        finish(flows.suspended, orch)
    except Pause:
        _let_go_on(orch)
        finish(flows.suspended, orch)


def finish_paused(orch: Orchestrator) -> None:
    """Pause, with somebody there who answers."""
    _let_go_on(orch)
    with _somebody_who(partial(_let_go_on, orch)):
        finish(flows.paused, orch)


def finish_waiting(orch: Orchestrator) -> None:
    """Wait for a signal, with somebody there who sends it, again and again, to no effect."""
    with _somebody_who(partial(_send_signals, orch)):
        finish(flows.waiting, orch)


@contextmanager
def _somebody_who(acts: Callable[[], None]) -> Iterator[None]:
    """A thread beside the block that acts again and again."""
    has_ended = threading.Event()

    def act() -> None:
        while not has_ended.wait(0.005):
            try:
                acts()
            except errors.OrchestratorError:
                # A fault; the next one may come through.
                continue

    somebody = threading.Thread(target=act)
    somebody.start()
    try:
        yield
    finally:
        has_ended.set()
        somebody.join()


def _send_signals(orch: Orchestrator) -> None:
    for run in orch.flow_runs.find(flow_name=flows.waiting.name):
        if not run.state.is_final():
            orch.send_signal(run.id, "go", "behind")


def _let_go_on(orch: Orchestrator) -> None:
    for run in orch.flow_runs.find(state_type="PAUSED"):
        try:
            resume_flow_run(run.id)
        except errors.NotPausedError:
            # It was answered meanwhile.
            continue


def finish_limited(orch: Orchestrator) -> None:
    """With both kinds of limits, and every slot free at the end."""
    for name in ("gate", "tag:heavy"):
        orch.concurrency_limits.upsert(name, 1)
    finish(flows.limited, orch)
    for name in ("gate", "tag:heavy"):
        assert orch.concurrency_limits.get(name).active_slots == 0


def finish_hooked(orch: Orchestrator) -> None:
    """With its hook, whoever calls it."""
    finish(flows.hooked, orch)
    orch.run_owed_hooks(flows.hooked)


def recover(orch: Orchestrator) -> None:
    """Find the dead owner, resume what asks for it, and what does not by hand."""
    orch.resume_crashed(flows.lasting)
    # If it has failed again, by a fault, that is told here.
    finish(flows.lasting, orch)
    finish(flows.failing, orch)


def cancel(orch: Orchestrator) -> None:
    """Cancel what a dead process has left; what is Crashed has ended, and stays."""
    for run in orch.flow_runs.find(state_type=["RUNNING", "CANCELLING"]):
        orch.flow_runs.cancel(run.id)
    assert {run.state.name for run in orch.flow_runs.find()} == {"Cancelled", "Crashed"}


def name_values(orch: Orchestrator) -> None:
    """Variables, each set again when it is there."""
    for call in ("one", "two"):
        orch.variables.set(call, flows.entered(call), overwrite=True)
        flows.told({"call": call})


def only_open(_orch: Orchestrator) -> None:
    """Opening was all."""


def die_in_two_runs(_orch: Orchestrator) -> None:
    """Leave a run of each kind of ``on_crash`` to an owner that is dead. Never returns."""
    flows.die_when_all_are_there(2)
    threading.Thread(target=flows.failing).start()
    flows.lasting()


def back_up(orch: Orchestrator) -> None:
    """A run, and a copy of the database with it; the copy is made once."""
    finish(flows.plain, orch)
    if not os.path.exists(_copy_of(orch.url)):
        orch.backup(_copy_of(orch.url))


def _copy_of(url: str) -> str:
    return url.removeprefix("sqlite:///") + "-copy"


def check_copy(url: str) -> list[str]:
    """What is wrong with the copy, which may not be there yet."""
    copy = _copy_of(url)
    return check_whole(copy, flow_runs=1) if os.path.exists(copy) else []


def check_whole(path: str, *, flow_runs: int) -> list[str]:
    """What is wrong with a file that was copied whole, and has so many flow runs."""
    with asking_bare(path) as asked:
        [(damage,)] = asked("pragma integrity_check")
        [(count,)] = asked("select count(*) from flow_run")
        found = problems(asked)
    if damage != "ok":
        found.append(damage)
    if count != flow_runs:
        found.append(f"{count} flow runs")
    return [f"{path}: {each}" for each in found]


THIRTY_YEARS = 30 * 365 * 86_400 * 1_000_000


def leave_an_old_run(orch: Orchestrator) -> None:
    """A flow run that called another, and that nobody is told of; it ended long ago."""
    flows.old()
    with orch.session(begin_transaction=True) as session:
        for kind in ("flow_run", "task_run"):
            session.execute(
                f"update {kind} set start_time = start_time - :ago, end_time = end_time - :ago, "
                f"state_timestamp = state_timestamp - :ago",
                {"ago": THIRTY_YEARS},
            )
            session.execute(
                f"update {kind}_state set timestamp = timestamp - :ago", {"ago": THIRTY_YEARS}
            )


def prune(orch: Orchestrator) -> None:
    """A run that stays, and none of the old ones."""
    finish(flows.plain, orch)
    orch.prune(timedelta(days=1))
    assert orch.flow_runs.count() == 1
    assert orch.check() == []


@contextmanager
def removing_little_at_once() -> Iterator[None]:
    """Have a tree take several transactions."""
    with patch.object(removing, "_ROWS", 2):
        yield


def name_values_and_run(orch: Orchestrator) -> None:
    """What is to be there through a migration."""
    finish(flows.plain, orch)
    name_values(orch)


@contextmanager
def knowing_a_second_migration() -> Iterator[None]:
    """Have this process know one more migration than the package has."""
    from embedded_orch.db.postgres import migrating as on_server
    from embedded_orch.db.sqlite import migrating as on_file

    def with_another(dialect: Dialect, _folder: str | None = None) -> list[Migration]:
        path = os.path.join(_MIGRATIONS, f"0002_second.{dialect}.sql")
        return [*migrations(dialect), Migration(2, "second", path)]

    with (
        patch.object(on_file, "migrations", with_another),
        patch.object(on_server, "migrations", with_another),
    ):
        yield


_MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")


def check_migrated(url: str) -> list[str]:
    """What is wrong with a database that is before or after the second migration."""
    with asking_bare(url) as asked:
        is_old = not list(asked(_HAS_REMARKS[url.startswith("postgresql")]))
        if is_old:
            return []
        remarks = sorted(text for (text,) in asked("select text from remark"))
        notes = [note for (note,) in asked("select note from variable")]
    found = []
    if remarks != ["one", "two"] or notes != ["of old"] * 2:
        found.append(f"the migration was done as {remarks}, {notes}")
    backup = f"{url}-backup-v1"
    if os.path.exists(backup):
        found += check_whole(backup, flow_runs=1)
    return found


_HAS_REMARKS = (
    "select 1 from sqlite_schema where name = 'remark'",
    "select 1 where to_regclass('embedded_orch.remark') is not null",
)


def make_table(orch: Orchestrator) -> None:
    """The table that tasks write to with SQL of their own."""
    with orch.session() as session:
        session.execute("create table loaded (call text not null)")

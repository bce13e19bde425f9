"""``embedded-orch recover [ID] [--force]`` and ``embedded-orch why ID``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.cli import text
from embedded_orch.cli.opening import engine_of, opened
from embedded_orch.cli.run_ids import check_digits, flow_run_id, whole_id
from embedded_orch.engine.effects import drive
from embedded_orch.engine.explaining import explaining
from embedded_orch.process import Process
from embedded_orch.recovery import recovering

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.db.port import Transaction


def recover(arguments: Arguments) -> int:
    """Set right what dead processes left, or take one run from its process."""
    word = arguments.run_id
    if word is not None:
        check_digits(word)
    process = Process()
    # Not as other commands, which have it done before they look: here it is told.
    with opened(arguments.db, process) as shared:
        url = shared.database.url
        run_id = None
        if word is not None:
            run_id = shared.database.read(lambda tx: flow_run_id(tx, word, url))
        found = drive(recovering(engine_of(shared, process), run_id, force=arguments.force))
    print(found)
    for what, ids in (
        ("Crashed", found.crashed),
        ("to be resumed", found.resumable),
        ("in its queue", found.put_back),
        ("Crashed", found.task_runs),
    ):
        for id in ids:
            print(f"  {id} {what}")
    return 0


def why(arguments: Arguments) -> int:
    """Say why a run is where it is, and what would move it."""
    check_digits(arguments.id)
    process = Process()
    # What dead processes left is told as it is, and not set right first.
    with opened(arguments.db, process) as shared:
        url = shared.database.url
        run_id = shared.database.read(lambda tx: _run_id(tx, arguments.id, url))
        found = drive(explaining(engine_of(shared, process), run_id))
    for line in str(found).splitlines():
        print(text.printable(line))
    return 0


def _run_id(tx: Transaction, word: str, url: str) -> UUID:
    """A flow run by its first digits, or a task run by its whole id."""
    try:
        return flow_run_id(tx, word, url)
    except errors.RunNotFound:
        whole = whole_id(word)
        if whole is None:
            raise
        return whole

"""``embedded-orch logs ID``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedded_orch.cli import text
from embedded_orch.cli.opening import opened_for_runs
from embedded_orch.cli.run_ids import check_digits, flow_run_id, whole_id
from embedded_orch.process import Process
from embedded_orch.searching import parse
from embedded_orch.store.logs import Lead, LogConditions, LogRow, count_logs, find_logs
from embedded_orch.store.task_runs import get_task_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.db.port import Transaction

    Names = Mapping[UUID, str]

_INDENT = 4


def print_logs(arguments: Arguments) -> int:
    """Print what one run logged: the newest lines, in the order in which they came."""
    check_digits(arguments.id)
    search = parse(arguments.text)
    conditions = LogConditions(
        min_level=arguments.level,
        any_terms=search.any_of or None,
        all_terms=search.all_of or None,
        no_terms=search.none_of or None,
    )
    with opened_for_runs(arguments.db, Process()) as shared:
        url = shared.database.url
        rows, names, count = shared.database.read(
            lambda tx: _find(tx, arguments.id, url, conditions, limit=arguments.limit)
        )
    if count > len(rows):
        print(f"{count - len(rows)} earlier lines are left out; see --limit")
    for row in rows:
        for line in _lines(row, names):
            print(line)
    if not rows:
        print("it has logged nothing" + ("" if conditions == LogConditions() else " that fits"))
    return 0


def _find(
    tx: Transaction, word: str, url: str, conditions: LogConditions, *, limit: int
) -> tuple[list[LogRow], Names, int]:
    lead = _lead(tx, word, url)
    rows = find_logs(tx, lead, conditions, order="desc", after=None, limit=limit)[::-1]
    ids = {row.task_run_id: None for row in rows if row.task_run_id is not None}
    names = {run.id: run.name for run in get_task_runs(tx, list(ids))}
    return rows, names, count_logs(tx, lead, conditions)


def _lead(tx: Transaction, word: str, url: str) -> Lead:
    """The task run whose id the word is, or the flow run whose id begins with it."""
    whole = whole_id(word)
    if whole is not None and get_task_runs(tx, [whole]):
        return Lead(task_run_id=whole)
    return Lead(flow_run_id=flow_run_id(tx, word, url))


def _lines(row: LogRow, names: Names) -> Iterator[str]:
    first, *more = row.message.splitlines() or [""]
    task = "" if row.task_run_id is None else f"{names.get(row.task_run_id, row.task_run_id)}: "
    at = text.moment(row.timestamp, exact=True)
    yield f"{at}  {logging.getLevelName(row.level):<8} {text.printable(f'{task}{first}')}"
    if more:
        yield text.block("\n".join(more), indent=_INDENT)

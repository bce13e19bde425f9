"""What runs have logged: appended in batches, found by run and by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec

from embedded_orch.process import uuid_of
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedded_orch.db.port import Transaction

    Order = Literal["asc", "desc"]

EARLIEST, LATEST = -(2**63), 2**63 - 1
"""Before the first line, and after the last."""
_LATE = 10_000_000
"""Lines are stored within 0.2 s. After so many microseconds their process was stopped, the database
was away, or the clock was set, and their run may have been removed."""
_FIRST_ID, _LAST_ID = UUID(int=0), UUID(int=(1 << 128) - 1)


class LogRow(msgspec.Struct, frozen=True):
    """One line; the time is microseconds since 1970 UTC, the level as ``logging`` numbers them."""

    timestamp: int
    id: UUID
    level: int
    name: str
    message: str
    flow_run_id: UUID | None
    task_run_id: UUID | None


class NewLogRow(msgspec.Struct, frozen=True):
    """A line to store, of a flow run that is named beside it; its id is 32 hexadecimal digits.

    Many are made at a time, and a UUID costs more than all the rest of one.
    """

    timestamp: int
    id: str
    level: int
    name: str
    message: str
    task_run_id: UUID | None


class LogConditions(msgspec.Struct, frozen=True, kw_only=True):
    """What lines are asked for, besides their run; None asks nothing."""

    since: int = EARLIEST
    until: int = LATEST
    min_level: int | None = None
    max_level: int | None = None
    has_task_run: bool | None = None
    any_terms: Sequence[str] | None = None
    """At least one of these is in the message or in the name of the logger."""
    all_terms: Sequence[str] | None = None
    no_terms: Sequence[str] | None = None


class Lead(msgspec.Struct, frozen=True):
    """The run whose lines are asked for: one task run, or one flow run, or any.

    Attributes:
        task_run_id: the task run.
        flow_run_id: the flow run; of a task run it does not need to be told.
        flow_run_ids: for a task run or for any: of one of these.
    """

    task_run_id: UUID | None = None
    flow_run_id: UUID | None = None
    flow_run_ids: Sequence[UUID] | None = None


def append(
    tx: Transaction, flow_run_id: UUID | None, rows: Sequence[NewLogRow], *, now: int
) -> None:
    """Store lines; nothing for those that are stored already, or whose flow run is gone by now.

    Args:
        tx: a write transaction.
        flow_run_id: whose lines; None for those of task runs outside of flows, and of no run.
        rows: the lines.
        now: microseconds since 1970 UTC, at which they are stored.
    """
    # On SQLite each run is seen that there is, for nobody writes beside an open transaction. On a
    # server one may be made in a transaction that is still open, so only late lines are asked. Late
    # both ways: a clock that was set forward and back tells nothing of how long they have waited.
    is_asked = tx.dialect == "sqlite" or any(abs(now - row.timestamp) > _LATE for row in rows)
    if len(rows) > 1:
        tx.run("log.append", flow_run_id=flow_run_id, lines=encode_struct(rows), is_asked=is_asked)
        return
    for row in rows:
        tx.run(
            "log.append_one",
            timestamp=row.timestamp,
            id=uuid_of(int(row.id, 16)),
            level=row.level,
            name=row.name,
            message=row.message,
            flow_run_id=flow_run_id,
            task_run_id=row.task_run_id,
            is_asked=is_asked,
        )


def find_logs(
    tx: Transaction,
    lead: Lead,
    conditions: LogConditions,
    *,
    order: Order,
    after: LogRow | None,
    limit: int,
) -> list[LogRow]:
    """A page of the lines that fit, by their time.

    Args:
        tx: a transaction.
        lead: whose lines.
        conditions: which of them.
        order: "asc" for the oldest first.
        after: the last line of the page before.
        limit: how many at most.
    """
    if after is not None:
        at: tuple[int, UUID] = after.timestamp, after.id
    elif order == "asc":
        at = conditions.since, _FIRST_ID
    else:
        at = conditions.until, _LAST_ID
    name, values = _bound(lead, conditions)
    values.pop("since" if order == "asc" else "until")
    rows = tx.rows(
        f"log.find_{name}_{order}",
        after_timestamp=at[0],
        after_id=at[1],
        limit=limit,
        **values,
    )
    return [LogRow(*row) for row in rows]


def count_logs(tx: Transaction, lead: Lead, conditions: LogConditions) -> int:
    """How many lines fit."""
    name, values = _bound(lead, conditions)
    return int(tx.value(f"log.count_{name}", **values))


def _bound(lead: Lead, conditions: LogConditions) -> tuple[str, dict[str, object]]:
    """Which statement, and its values."""
    values: dict[str, object] = {
        "since": conditions.since,
        "until": conditions.until,
        "min_level": conditions.min_level,
        "max_level": conditions.max_level,
        "has_task_run": conditions.has_task_run,
        **_arrays(
            {
                "any_terms": conditions.any_terms,
                "all_terms": conditions.all_terms,
                "no_terms": conditions.no_terms,
                "flow_run_ids": lead.flow_run_ids,
            }
        ),
    }
    if lead.task_run_id is not None:
        return "by_task_run", {"task_run_id": lead.task_run_id, **values}
    if lead.flow_run_id is not None:
        return "by_flow_run", {"flow_run_id": lead.flow_run_id, **values}
    return "all", values


def _arrays(given: Mapping[str, Sequence[object] | None]) -> dict[str, str | None]:
    return {
        name: None if items is None else encode_struct([str(item) for item in items])
        for name, items in given.items()
    }

"""Load CSV files of orders into a table, each file exactly once, however often it is killed.

    python examples/load_orders.py FOLDER [--db orders.db]

Every ``*.csv`` in the folder is parsed, checked and booked. The rows of a file and the fact that it
is done are committed together, so a program that is killed at any moment, and started again, books
what is missing and nothing twice. A file with a bad line books nothing and is reported; mend it and
start again.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.context import get_run_context

# For the demonstration: the process kills itself after so many files.
KILL_AFTER = int(os.environ.get("KILL_AFTER", "0"))
TABLE = """
    create table if not exists booked_order (
        file text not null, number text not null, customer text not null, cents integer not null,
        primary key (file, number)
    )
"""


@task
def parse(path: Path) -> list[dict[str, str | int]]:
    """The orders in a file; raises at the first line that is no order."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    orders: list[dict[str, str | int]] = []
    for line, row in enumerate(rows, start=2):
        try:
            cents = int(Decimal(row["amount"]) * 100)
        except (InvalidOperation, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}, line {line}: {row} is no order") from error
        orders.append({"number": row["number"], "customer": row["customer"], "cents": cents})
    return orders


@task(retries=2, retry_delay_seconds=1)
def book(file: str, orders: list[dict[str, str | int]]) -> int:
    """Write the orders of a file, in the transaction of this task's completion."""
    connection = get_run_context().transaction.connection
    for order in orders:
        connection.execute(
            "insert into booked_order values (:file, :number, :customer, :cents)",
            {"file": file, **order},
        )
    return len(orders)


@task
def booked_before() -> list[str]:
    """The files that earlier runs have booked."""
    connection = get_run_context().transaction.connection
    return [row[0] for row in connection.execute("select distinct file from booked_order")]


@flow
def load_orders(folder: Path) -> dict[str, int]:
    """Book every file of a folder; how many orders each had. Files that are bad are left out."""
    booked: dict[str, int] = {}
    done = booked_before()
    for path in sorted(folder.glob("*.csv")):
        if path.name in done:
            continue
        parsed = parse(path, return_state=True)
        if parsed.is_failed():
            print(f"left out: {parsed.result(raise_on_failure=False)}")
            continue
        booked[path.name] = book(path.name, parsed.result())
        if len(booked) == KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
    return booked


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Load CSV files of orders, each once.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--db", default="orders.db")
    arguments = parser.parse_args()
    with embedded_orch.open(arguments.db) as orch:
        with orch.session() as session:
            session.execute(TABLE)
        # Continues the run that was killed, if there is one; else begins a new one.
        booked = load_orders.resume(parameters={"folder": arguments.folder.resolve()})
        (total,) = orch.sql("select count(*), coalesce(sum(cents), 0) from booked_order")
    print(f"{len(booked)} files, {total[0]} orders, {total[1] / 100:.2f} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

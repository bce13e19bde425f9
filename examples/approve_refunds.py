"""A run that stops for a person: refunds above a limit wait until somebody has answered.

    python examples/approve_refunds.py request 120.00 --db refunds.db     # suspends, and ends
    python examples/approve_refunds.py answer RUN_ID yes --by Ann --db refunds.db

Small refunds are paid at once. For a large one the run is suspended: the process ends, and the
answer may come a day later from another one, which carries on where the run stopped. What was done
before is not done again, and an answer that is none is refused while the run goes on waiting.
"""

from __future__ import annotations

import argparse
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import embedded_orch
from embedded_orch import flow, resume_flow_run, suspend_flow_run, task
from embedded_orch.exceptions import Pause
from embedded_orch.input import RunInput

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch import Orchestrator

LIMIT = Decimal(100)


class Decision(RunInput):
    """What a person answers."""

    is_approved: bool
    by: str


@task
def reserve(amount: Decimal) -> str:
    """Put the money aside; a real one would ask the bank."""
    return f"reservation of {amount}"


@task
def pay(reservation: str) -> str:
    """Pay what was put aside."""
    return f"paid: {reservation}"


@task
def release(reservation: str, by: str) -> str:
    """Give back what was put aside."""
    return f"refused by {by}: {reservation}"


@flow
def refund(amount: Decimal) -> str:
    """Refund an amount, after a person has agreed if it is large."""
    reservation = reserve(amount)
    if amount <= LIMIT:
        return pay(reservation)
    decision = suspend_flow_run(wait_for_input=Decision, timeout=7 * 24 * 3600)
    return pay(reservation) if decision.is_approved else release(reservation, decision.by)


def request(orch: Orchestrator, amount: Decimal) -> None:
    """Start a refund, and say what became of it."""
    try:
        print(refund(amount))
    except Pause:
        newest = next(orch.flow_runs.find(state_type="PAUSED"))
        print(f"waits for an answer: {newest.id}")


def answer(run_id: UUID | str, *, is_approved: bool, by: str) -> None:
    """Answer for a refund that waits, and carry on with it."""
    resume_flow_run(run_id, run_input={"is_approved": is_approved, "by": by})
    print(refund.resume(run_id))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Refunds that a person has to agree to.")
    parser.add_argument("--db", default="refunds.db")
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("request")
    asking.add_argument("amount", type=Decimal)
    answering = commands.add_parser("answer")
    answering.add_argument("run_id")
    answering.add_argument("answer", choices=["yes", "no"])
    answering.add_argument("--by", required=True)
    arguments = parser.parse_args()
    with embedded_orch.open(arguments.db) as orch:
        if arguments.command == "request":
            request(orch, arguments.amount)
        else:
            answer(arguments.run_id, is_approved=arguments.answer == "yes", by=arguments.by)
    return 0


if __name__ == "__main__":
    sys.exit(main())

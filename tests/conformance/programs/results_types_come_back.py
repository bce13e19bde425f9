"""A stored value comes back equal and of its type."""

from datetime import date
from decimal import Decimal
from pathlib import Path

from embedded_orch import flow, get_client

VALUES = [(1, 2), {1, 2}, {1: "a"}, b"bytes", date(2026, 1, 31), Decimal("1.10"), Path("a/b")]


@flow
def one(number: int):
    return VALUES[number]


with get_client(sync_client=True) as client:
    for number, value in enumerate(VALUES):
        one(number)
        stored = client.read_flow_runs(limit=1)[0].state.result()
        assert stored == value and type(stored) is type(value)

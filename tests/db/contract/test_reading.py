from __future__ import annotations

import pytest

from embedded_orch.db.port import Transaction
from tests.db.contract.probe import Background, Probe, numbers_in


def test_a_read_sees_what_was_written_before(probe: Probe) -> None:
    probe.database.write(probe.insert(1))

    assert probe.numbers() == [1]


def test_a_read_returns_what_its_operation_returns(probe: Probe) -> None:
    assert probe.database.read(lambda tx: tx.value("probe.count")) == 0
    assert probe.database.read(lambda tx: tx.row("probe.get", id=probe.new_id())) is None


def test_a_read_raises_what_its_operation_raises_and_the_next_one_works(probe: Probe) -> None:
    def fail(tx: Transaction) -> None:
        tx.rows("probe.numbers")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        probe.database.read(fail)

    assert probe.numbers() == []


def test_all_statements_of_a_read_see_one_snapshot(probe: Probe) -> None:
    """Seen to fail on Postgres with READ COMMITTED in the place of one snapshot."""
    writers: list[Background] = []

    def twice(tx: Transaction) -> tuple[list[int], list[int]]:
        first = numbers_in(tx)
        writers.append(Background(lambda: probe.database.write(probe.insert(2))))
        if probe.reads_beside_writes:
            writers[0].result()
        return first, numbers_in(tx)

    probe.database.write(probe.insert(1))

    assert probe.database.read(twice) == ([1], [1])
    writers[0].result()
    assert probe.numbers() == [1, 2]


def test_a_read_inside_a_write_sees_what_that_wrote(probe: Probe) -> None:
    def insert_and_look(tx: Transaction) -> list[int]:
        insert(tx)
        return numbers_in(tx)

    insert = probe.insert(5)

    assert probe.database.write(insert_and_look) == [5]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, r"missing parameters \['id'\]"),
        ({"id": None, "number": 1}, r"missing parameters \[\], unknown parameters \['number'\]"),
        ({"number": 1}, r"missing parameters \['id'\], unknown parameters \['number'\]"),
    ],
)
def test_the_values_of_a_statement_must_be_exactly_its_parameters(
    probe: Probe, values: dict[str, object], complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        probe.database.read(lambda tx: tx.rows("probe.get", **values))


def test_a_statement_that_does_not_exist_is_named(probe: Probe) -> None:
    with pytest.raises(LookupError, match=r"no statement 'probe\.nothing'"):
        probe.database.read(lambda tx: tx.rows("probe.nothing"))

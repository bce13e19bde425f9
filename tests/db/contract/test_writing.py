from __future__ import annotations

import pytest

from embedded_orch.db.port import Transaction
from embedded_orch.errors import ConstraintViolated, DatabaseError
from tests.db.contract.probe import Gate, Probe, all_of, in_background, numbers_in


def test_a_write_returns_what_its_operation_returns(probe: Probe) -> None:
    assert probe.database.write(probe.insert(1)) == 1
    assert probe.database.write(lambda tx: ("any", "value")) == ("any", "value")


def test_run_tells_how_many_rows_it_changed(probe: Probe) -> None:
    for number in range(5):
        probe.database.write(probe.insert(number))

    assert probe.database.write(lambda tx: tx.run("probe.delete", number=2)) == 3
    assert probe.database.write(lambda tx: tx.run("probe.delete", number=2)) == 0


def test_run_many_writes_each_of_its_rows(probe: Probe) -> None:
    rows = [{"id": probe.new_id(), "number": number} for number in range(500)]

    probe.database.write(lambda tx: tx.run_many("probe.repeat", iter(rows)))
    probe.database.write(lambda tx: tx.run_many("probe.repeat", rows))

    assert probe.numbers() == list(range(500))


def test_run_many_of_nothing_does_nothing(probe: Probe) -> None:
    probe.database.write(lambda tx: tx.run_many("probe.repeat", []))

    assert probe.numbers() == []


def test_an_operation_that_raises_changes_nothing(probe: Probe) -> None:
    with pytest.raises(KeyError, match="mine"):
        probe.database.write(probe.insert_then_fail(1, KeyError("mine")))

    assert probe.numbers() == []


def test_an_interrupt_in_an_operation_changes_nothing(probe: Probe) -> None:
    """Seen to fail on SQLite, where the next leader ran it again."""

    def interrupted(tx: Transaction) -> None:
        insert(tx)
        if not tries:
            tries.append(True)
            raise KeyboardInterrupt

    insert = probe.insert(1)
    tries: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        probe.database.write(interrupted)

    probe.database.write(probe.insert(2))

    assert probe.numbers() == [2]


def test_a_broken_constraint_is_an_error_of_ours_and_changes_nothing(probe: Probe) -> None:
    def insert_both(tx: Transaction) -> None:
        new(tx)
        taken_again(tx)

    new, taken_again = probe.insert(2), probe.insert(1)
    probe.database.write(probe.insert(1))

    with pytest.raises(ConstraintViolated):
        probe.database.write(insert_both)

    assert probe.numbers() == [1]


def test_a_wrong_statement_is_an_error_of_ours(probe: Probe) -> None:
    with pytest.raises(DatabaseError):
        probe.database.write(lambda tx: tx.script("insert into nothing values (1)"))
    with pytest.raises(DatabaseError):
        probe.database.read(lambda tx: tx.script("select from"))


def test_a_failing_operation_leaves_those_beside_it_alone(probe: Probe) -> None:
    """On SQLite they wait together and are committed together."""
    gate = Gate()
    with in_background(lambda: probe.database.write(gate.before(probe.insert(0)))):
        gate.reached.wait()

        def fail() -> str:
            with pytest.raises(KeyError, match="mine"):
                probe.database.write(probe.insert_then_fail(100, KeyError("mine")))
            return "failed"

        gate.open_soon()
        answers = all_of(
            [
                lambda: probe.database.write(probe.insert(1)),
                fail,
                lambda: probe.database.write(probe.insert(2)),
            ]
        )

    assert answers == [1, "failed", 1]
    assert probe.numbers() == [0, 1, 2]


def test_eight_threads_write_beside_each_other_and_nothing_is_lost(probe: Probe) -> None:
    counter = probe.new_id()
    probe.database.write(probe.insert(-1, id=counter))

    def insert_and_count(tx: Transaction) -> None:
        tx.run("probe.repeat", id=probe.new_id(), number=numbers.pop())
        tx.run("probe.add", id=counter, more=-1)

    def two_hundred() -> None:
        for _ in range(200):
            probe.database.write(insert_and_count)

    # More than are used: an operation may run again and take another.
    numbers = list(range(10_000))
    all_of([two_hundred] * 8)

    found = probe.numbers()
    assert found[0] == -1601
    assert len(found) == 1601


def test_a_write_that_finds_its_row_answers_the_same(probe: Probe) -> None:
    def ensure(tx: Transaction) -> list[int]:
        tx.run("probe.repeat", id=id, number=7)
        return numbers_in(tx)

    id = probe.new_id()

    assert probe.database.write(ensure) == probe.database.write(ensure) == [7]

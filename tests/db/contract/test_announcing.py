from __future__ import annotations

import pytest

from embedded_orch.db.port import Transaction
from embedded_orch.errors import ConstraintViolated
from tests.db.contract.probe import Gate, Operation, Probe, in_background, numbers_in, wait_until


def test_a_read_sees_what_was_announced_before_it(probe: Probe) -> None:
    for number in range(20):
        probe.database.announce(probe.insert(number))
        assert probe.numbers() == list(range(number + 1))


def test_a_write_sees_what_was_announced_before_it(probe: Probe) -> None:
    for number in range(20):
        probe.database.announce(probe.insert(number))
        assert probe.database.write(numbers_in) == list(range(number + 1))


def test_what_was_announced_is_committed_though_nobody_waits_for_it(probe: Probe) -> None:
    gate = Gate()
    probe.database.announce(gate.before(probe.insert(1)))
    gate.open()

    assert gate.reached.wait(20)


def test_a_read_waits_for_what_was_announced_and_is_on_its_way(probe: Probe) -> None:
    """Seen to fail on a SQLite file whose readers looked at the queue alone."""
    gate = Gate()
    probe.database.announce(gate.before(probe.insert(1)))
    gate.reached.wait()
    gate.open_soon()

    assert probe.numbers() == [1]


def test_a_read_waits_for_an_announced_write_that_goes_with_another(probe: Probe) -> None:
    """Seen to fail on Postgres without the set of those that were taken from the queue."""
    gate = Gate()
    announced = probe.database.announce(probe.insert(1))
    finish = gate.before(probe.insert(2))
    with in_background(lambda: probe.database.write(finish, after=announced)):
        gate.reached.wait()
        gate.open_soon()

        assert 1 in probe.numbers()


def test_announced_writes_are_committed_in_their_order(probe: Probe) -> None:
    def note(number: int) -> Operation:
        insert = probe.insert(number)

        def operation(tx: Transaction) -> None:
            insert(tx)
            order.append(number)

        return operation

    order: list[int] = []
    for number in range(600):
        probe.database.announce(note(number))

    assert len(probe.numbers()) == 600
    assert order == sorted(order)


def test_a_write_after_an_announced_one_finds_it_written(probe: Probe) -> None:
    for number in range(50):
        id = probe.new_id()
        announced = probe.database.announce(probe.insert(number, id=id))

        def finish(tx: Transaction, id: object = id) -> int:
            return tx.run("probe.add", id=id, more=1000)

        assert probe.database.write(finish, after=announced) == 1

    assert probe.numbers() == list(range(1000, 1050))


def test_an_announced_write_that_fails_keeps_its_error_and_spoils_no_other(probe: Probe) -> None:
    first = probe.database.announce(probe.insert(1))
    broken = probe.database.announce(probe.insert(1))
    raising = probe.database.announce(probe.insert_then_fail(3, KeyError("mine")))
    last = probe.database.announce(probe.insert(4))

    assert probe.numbers() == [1, 4]
    assert first.error is None
    assert isinstance(broken.error, ConstraintViolated)
    assert isinstance(raising.error, KeyError)
    assert last.error is None


def test_the_failure_of_an_announced_write_is_not_that_of_the_write_after_it(
    probe: Probe,
) -> None:
    announced = probe.database.announce(probe.insert_then_fail(1, KeyError("mine")))

    assert probe.database.write(probe.insert(2), after=announced) == 1
    assert isinstance(announced.error, KeyError)
    assert probe.numbers() == [2]


def test_the_failure_of_a_write_leaves_the_announced_one_before_it(probe: Probe) -> None:
    announced = probe.database.announce(probe.insert(1))

    with pytest.raises(KeyError, match="mine"):
        probe.database.write(probe.insert_then_fail(2, KeyError("mine")), after=announced)

    assert announced.error is None
    assert probe.numbers() == [1]


def test_a_write_after_an_announced_one_that_is_on_its_way_waits_for_it(probe: Probe) -> None:
    gate = Gate()
    announced = probe.database.announce(gate.before(probe.insert(1)))
    gate.reached.wait()
    gate.open_soon()

    assert probe.database.write(numbers_in, after=announced) == [1]


def test_the_error_of_an_announced_write_is_known_once_it_was_tried(probe: Probe) -> None:
    announced = probe.database.announce(probe.insert_then_fail(1, KeyError("mine")))

    wait_until(lambda: announced.error)


def test_many_threads_announce_and_finish_and_nothing_is_lost(probe: Probe) -> None:
    def run_tasks(first: int) -> None:
        for number in range(first, first + 50):
            id = probe.new_id()
            announced = probe.database.announce(probe.insert(number, id=id))

            def finish(tx: Transaction, id: object = id) -> int:
                return tx.run("probe.add", id=id, more=10_000)

            assert probe.database.write(finish, after=announced) == 1

    with in_background(*[lambda first=first: run_tasks(first) for first in range(0, 400, 50)]):
        pass

    assert probe.numbers() == list(range(10_000, 10_400))

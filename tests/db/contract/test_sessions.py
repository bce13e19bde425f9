from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from embedded_orch.db.port import Transaction
from embedded_orch.db.session import Session, open_session
from embedded_orch.errors import (
    ConstraintViolated,
    DatabaseError,
    StatementRefused,
    TransactionFailed,
    WouldDeadlock,
)
from tests.db.contract.probe import Background, Operation, Probe, numbers_in

INSERT = "insert into probe (id, number) values (:id, :number)"


def a_session(
    probe: Probe,
    *,
    begin_transaction: bool = True,
    read_only: bool = False,
    with_for_update: bool = False,
) -> AbstractContextManager[Session]:
    return open_session(
        probe.database,
        begin_transaction=begin_transaction,
        with_for_update=with_for_update,
        read_only=read_only,
    )


def insert(session: Session, probe: Probe, number: int) -> int:
    return session.execute(INSERT, {"id": probe.new_id(), "number": number}).changed


# -- A person's statements -----------------------------------------------------------------------


def test_a_session_is_one_transaction_from_its_entry_to_its_exit(probe: Probe) -> None:
    with a_session(probe) as session:
        assert session.in_transaction
        insert(session, probe, 1)
        insert(session, probe, 2)

    assert not session.in_transaction
    assert probe.numbers() == [1, 2]


def test_a_session_whose_block_raises_is_rolled_back(probe: Probe) -> None:
    def block() -> None:
        with a_session(probe) as session:
            insert(session, probe, 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()

    assert probe.numbers() == []


def test_without_a_transaction_each_statement_is_one(probe: Probe) -> None:
    with a_session(probe, begin_transaction=False) as session:
        assert not session.in_transaction
        insert(session, probe, 1)
        assert probe.numbers() == [1]
        with pytest.raises(ConstraintViolated):
            insert(session, probe, 1)
        insert(session, probe, 2)

    assert probe.numbers() == [1, 2]


def test_a_session_without_a_transaction_can_begin_several(probe: Probe) -> None:
    def block(session: Session) -> None:
        with session.begin():
            insert(session, probe, 2)
            raise KeyError("mine")

    with a_session(probe, begin_transaction=False) as session:
        with session.begin():
            insert(session, probe, 1)
        with pytest.raises(KeyError, match="mine"):
            block(session)
        with session.begin():
            insert(session, probe, 3)

    assert probe.numbers() == [1, 3]


def test_a_statement_returns_its_rows_with_their_columns(probe: Probe) -> None:
    with a_session(probe) as session:
        insert(session, probe, 1)
        insert(session, probe, 2)
        rows = session.execute(
            "select number, note from probe where number > :least order by number", {"least": 0}
        )

    assert rows.columns == ("number", "note")
    assert list(rows) == [(1, None), (2, None)]
    assert rows.dicts()[0] == {"number": 1, "note": None}
    assert rows.changed == 0


def test_a_statement_tells_how_many_rows_it_changed(probe: Probe) -> None:
    with a_session(probe) as session:
        for number in range(4):
            assert insert(session, probe, number) == 1
        updated = session.execute("update probe set note = 'x' where number < 3")
        returning = session.execute("delete from probe where number < 2 returning number")

    assert (updated.changed, updated.columns) == (3, ())
    assert (returning.changed, sorted(returning)) == (2, [(0,), (1,)])


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("select nothing from probe", None),
        ("select from where", None),
        (INSERT, {"id": None}),
        ("select 1", {"unused": 1}),
        ("select :value", {"value": object()}),
    ],
)
def test_a_wrong_statement_is_refused(
    probe: Probe, sql: str, parameters: dict[str, object] | None
) -> None:
    with pytest.raises(StatementRefused), a_session(probe) as session:
        session.execute(sql, parameters)


def test_a_broken_constraint_rolls_the_session_back(probe: Probe) -> None:
    def block() -> None:
        with a_session(probe) as session:
            insert(session, probe, 1)
            insert(session, probe, 1)

    with pytest.raises(ConstraintViolated):
        block()

    assert probe.numbers() == []


# -- Calls of ours inside ------------------------------------------------------------------------


def test_calls_inside_a_session_are_part_of_its_transaction(probe: Probe) -> None:
    def block() -> None:
        with a_session(probe) as session:
            insert(session, probe, 1)
            probe.database.write(probe.insert(2))
            probe.database.announce(probe.insert(3))
            assert probe.numbers() == [1, 2, 3]
            assert session.execute("select count(*) from probe").scalar() == 3
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()

    assert probe.numbers() == []


def test_a_write_inside_a_session_can_build_on_an_announced_one(probe: Probe) -> None:
    before = probe.database.announce(probe.insert(1))
    with a_session(probe):
        inside = probe.database.announce(probe.insert(2))
        assert probe.database.write(numbers_in, after=before) == [1, 2]
        assert probe.database.write(numbers_in, after=inside) == [1, 2]

    assert probe.database.write(numbers_in, after=inside) == [1, 2]


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()], ids=repr)
def test_a_call_that_fails_inside_a_session_fails_alone(probe: Probe, error: BaseException) -> None:
    with a_session(probe) as session:
        insert(session, probe, 1)
        for number in (2, 3):
            with pytest.raises(type(error)):
                probe.database.write(probe.insert_then_fail(number, error))
        probe.database.write(probe.insert(4))

    assert probe.numbers() == [1, 4]


def test_a_broken_constraint_inside_a_session_is_an_error_of_ours_and_alone(probe: Probe) -> None:
    """Seen to fail on SQLite, where the driver's own error came out."""
    with a_session(probe) as session:
        insert(session, probe, 1)
        with pytest.raises(ConstraintViolated):
            probe.database.write(probe.insert(1))
        with pytest.raises(DatabaseError):
            probe.database.write(lambda tx: tx.script("insert into nothing values (1)"))
        insert(session, probe, 2)

    assert probe.numbers() == [1, 2]


def test_another_thread_is_no_part_of_the_session(probe: Probe) -> None:
    with a_session(probe) as session:
        insert(session, probe, 1)
        other = Background(probe.numbers)
        if probe.reads_beside_writes:
            assert other.result() == []

    assert other.result() == ([] if probe.reads_beside_writes else [1])


def test_a_write_of_another_thread_is_kept_when_the_session_is_rolled_back(probe: Probe) -> None:
    others: list[Background] = []

    def block() -> None:
        with a_session(probe) as session:
            insert(session, probe, 1)
            others.append(Background(lambda: probe.database.write(probe.insert(2))))
            if probe.database.dialect == "postgres":
                others[0].result()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        block()

    others[0].result()
    assert probe.numbers() == [2]


def test_two_sessions_of_two_databases_are_apart(probe: Probe) -> None:
    from embedded_orch.db.opening import OpenDatabases
    from embedded_orch.process import Process

    process = Process()
    databases = OpenDatabases(process)
    shared = databases.open(":memory:", {})
    other = Probe(shared.database, process)

    with a_session(probe) as session, a_session(other):
        insert(session, probe, 1)
        other.database.write(other.insert(2))
        assert probe.numbers() == [1]

    assert (probe.numbers(), other.numbers()) == ([1], [2])
    databases.close(shared)


# -- Reading only --------------------------------------------------------------------------------


def announce(probe: Probe) -> None:
    probe.database.announce(probe.insert(2))


def write(probe: Probe) -> None:
    probe.database.write(probe.insert(2))


@pytest.mark.parametrize("call", [announce, write])
def test_a_call_that_writes_is_refused_in_a_read_only_session(
    probe: Probe, call: Operation
) -> None:
    probe.database.write(probe.insert(1))

    with a_session(probe, read_only=True):
        assert probe.numbers() == [1]
        with pytest.raises(StatementRefused, match="read-only"):
            call(probe)  # type: ignore[arg-type]

    assert probe.numbers() == [1]


def test_a_statement_that_writes_is_refused_in_a_read_only_session(probe: Probe) -> None:
    with a_session(probe, read_only=True, begin_transaction=False) as session:
        with pytest.raises(StatementRefused, match="read-only"):
            insert(session, probe, 1)
        with pytest.raises(StatementRefused, match="read-only"), session.begin():
            insert(session, probe, 2)
        assert session.execute("select count(*) from probe").scalar() == 0

    # What it used is given back able to write.
    probe.database.write(probe.insert(3))
    with a_session(probe) as session:
        insert(session, probe, 4)
    assert probe.numbers() == [3, 4]


def test_a_read_only_session_sees_one_snapshot(probe: Probe) -> None:
    probe.database.write(probe.insert(1))

    with a_session(probe, read_only=True) as session:
        before = session.execute("select count(*) from probe").scalar()
        other = Background(lambda: probe.database.write(probe.insert(2)))
        if probe.reads_beside_writes:
            other.result()
        assert session.execute("select count(*) from probe").scalar() == before == 1
        assert probe.numbers() == [1]

    other.result()
    assert probe.numbers() == [1, 2]


def test_a_session_sees_what_was_announced_before_it(probe: Probe) -> None:
    for read_only in (False, True):
        probe.database.announce(probe.insert(1 + read_only))
        with a_session(probe, read_only=read_only) as session:
            assert session.execute("select count(*) from probe").scalar() == 1 + read_only


def test_a_session_for_update_reads_and_writes_as_any_other(probe: Probe) -> None:
    with a_session(probe, with_for_update=True) as session:
        insert(session, probe, 1)
        assert probe.numbers() == [1]

    assert probe.numbers() == [1]


# -- One at a time -------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_second_transaction_where_one_is_open_is_refused_at_once(
    probe: Probe, read_only: bool
) -> None:
    with a_session(probe) as session:
        insert(session, probe, 1)
        with pytest.raises(WouldDeadlock, match="use that session"):
            a_session(probe, read_only=read_only).__enter__()
        with (
            a_session(probe, begin_transaction=False, read_only=read_only) as second,
            pytest.raises(WouldDeadlock, match="use that session"),
        ):
            second.execute("select 1")
        with pytest.raises(WouldDeadlock, match="already"), session.begin():
            pass
        insert(session, probe, 2)

    assert probe.numbers() == [1, 2]


def test_a_session_cannot_be_used_by_a_thread_that_is_late(probe: Probe) -> None:
    with a_session(probe) as session:
        insert(session, probe, 1)
        core = session._core
        scope = core.scope
        assert scope is not None

    with pytest.raises(TransactionFailed, match="has ended"):
        scope.run(lambda opened: opened.execute("select 1", ()))
    assert probe.numbers() == [1]


def test_sessions_of_many_threads_take_their_turns(probe: Probe) -> None:
    counter = probe.new_id()
    probe.database.write(probe.insert(0, id=counter))

    def add(tx: Transaction) -> int:
        return tx.run("probe.add", id=counter, more=1)

    def twenty() -> None:
        for _ in range(20):
            with a_session(probe) as session:
                session.execute("update probe set number = number + 1")
                probe.database.write(add)

    for thread in [Background(twenty) for _ in range(6)]:
        thread.result()

    assert probe.numbers() == [240]

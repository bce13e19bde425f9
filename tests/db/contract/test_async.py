from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from embedded_orch.db.port import Transaction
from embedded_orch.db.session import AsyncSession, open_async_session, open_session
from embedded_orch.errors import StatementRefused, WouldDeadlock
from tests.db.contract.probe import (
    PATIENCE_SECONDS,
    Gate,
    Probe,
    in_background,
    numbers_in,
    wait_until,
)

INSERT = "insert into probe (id, number) values (:id, :number)"


def run(event_loop: str, main: Callable[[], Awaitable[None]]) -> None:
    async def within_patience() -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            await main()

    anyio.run(within_patience, backend=event_loop)


def a_session(
    probe: Probe, *, begin_transaction: bool = True, read_only: bool = False
) -> AbstractAsyncContextManager[AsyncSession]:
    return open_async_session(
        probe.database,
        begin_transaction=begin_transaction,
        with_for_update=False,
        read_only=read_only,
    )


async def insert(session: AsyncSession, probe: Probe, number: int) -> None:
    await session.execute(INSERT, {"id": probe.new_id(), "number": number})


# -- Operations ----------------------------------------------------------------------------------


def test_an_async_read_sees_what_an_async_write_wrote(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        assert await probe.database.write_async(probe.insert(1)) == 1
        assert await probe.database.read_async(numbers_in) == [1]

    run(event_loop, main)


def test_an_async_call_raises_what_its_operation_raises(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            await probe.database.write_async(probe.insert_then_fail(1, KeyError("mine")))
        assert await probe.database.read_async(numbers_in) == []

    run(event_loop, main)


def test_an_async_write_finds_what_was_announced_before_it(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        for number in range(20):
            announced = probe.database.announce(probe.insert(number))
            found = await probe.database.write_async(numbers_in, after=announced)
            assert found == list(range(number + 1))

    run(event_loop, main)


def test_many_tasks_write_beside_each_other(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(probe.database.write_async, probe.insert(number))

    run(event_loop, main)

    assert probe.numbers() == list(range(100))


def test_the_event_loop_goes_on_while_a_write_waits(probe: Probe, event_loop: str) -> None:
    """The write waits for a session that only ends when the event loop gets to it."""
    shared = probe.new_id()
    probe.database.write(probe.insert(1, id=shared))
    gate = Gate()

    def hold() -> None:
        with open_session(
            probe.database, begin_transaction=True, with_for_update=False, read_only=False
        ) as session:
            session.execute("update probe set note = 'held'")
            gate.stop_here()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                probe.database.write_async,
                lambda tx: tx.run("probe.add", id=shared, more=1),
            )
            await anyio.lowlevel.checkpoint()
            gate.open()

    with in_background(hold):
        gate.reached.wait()
        run(event_loop, main)

    assert probe.numbers() == [2]


def test_a_write_that_was_cancelled_before_it_began_is_not_done(
    probe: Probe, event_loop: str
) -> None:
    if probe.database.dialect == "postgres":
        pytest.skip("its transactions do not wait for one another to begin")
    gate = Gate()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(probe.database.write_async, probe.insert(2))
                await anyio.lowlevel.checkpoint()
                scope.cancel()

    with in_background(lambda: probe.database.write(gate.before(probe.insert(1)))):
        gate.reached.wait()
        run(event_loop, main)
        gate.open()

    assert probe.numbers() == [1]


def test_a_write_that_was_cancelled_after_it_began_is_done_whole(
    probe: Probe, event_loop: str
) -> None:
    gate = Gate()
    first, second = probe.insert(1), probe.insert(2)

    def insert_both(tx: Transaction) -> None:
        first(tx)
        gate.stop_here()
        second(tx)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(probe.database.write_async, insert_both)
                await anyio.to_thread.run_sync(gate.reached.wait)
                gate.open_soon()
                scope.cancel()

    run(event_loop, main)

    wait_until(lambda: probe.numbers() == [1, 2])


def test_the_database_outlives_its_event_loops(probe: Probe, event_loop: str) -> None:
    for number in range(5):

        async def main(number: int = number) -> None:
            probe.database.announce(probe.insert(2 * number))
            await probe.database.write_async(probe.insert(2 * number + 1))

        run(event_loop, main)

    assert probe.numbers() == list(range(10))


# -- Sessions ------------------------------------------------------------------------------------


def test_an_async_session_is_one_transaction_across_awaits(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        async with a_session(probe) as session:
            assert session.in_transaction
            await insert(session, probe, 1)
            await anyio.lowlevel.checkpoint()
            await insert(session, probe, 2)
        assert not session.in_transaction

    run(event_loop, main)

    assert probe.numbers() == [1, 2]


def test_an_async_session_whose_block_raises_is_rolled_back(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        async with a_session(probe) as session:
            await insert(session, probe, 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(event_loop, main)

    assert probe.numbers() == []


def test_an_async_session_that_is_cancelled_is_rolled_back(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with a_session(probe) as session:
                await insert(session, probe, 1)
                scope.cancel()
                await insert(session, probe, 2)

    run(event_loop, main)
    probe.database.write(probe.insert(3))

    assert probe.numbers() == [3]


def test_calls_of_the_task_join_its_session(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        async with a_session(probe) as session:
            await insert(session, probe, 1)
            await probe.database.write_async(probe.insert(2))
            probe.database.write(probe.insert(3))
            probe.database.announce(probe.insert(4))
            assert await probe.database.read_async(numbers_in) == [1, 2, 3, 4]
            assert probe.database.read(numbers_in) == [1, 2, 3, 4]
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(event_loop, main)

    assert probe.numbers() == []


def test_a_call_of_another_task_waits_for_the_session_or_goes_beside_it(
    probe: Probe, event_loop: str
) -> None:
    """A child task inherits the context of the task that holds the session, and is not it."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks, a_session(probe) as session:
            await insert(session, probe, 1)
            tasks.start_soon(probe.database.write_async, probe.insert(2))
            await anyio.lowlevel.checkpoint()
            await insert(session, probe, 3)

    run(event_loop, main)

    assert probe.numbers() == [1, 2, 3]


def test_a_session_gets_a_thread_however_many_calls_wait_for_it(
    probe: Probe, event_loop: str
) -> None:
    """Seen to fail with the threads that all share: they were all taken by those who waited."""
    shared = probe.new_id()
    probe.database.write(probe.insert(0, id=shared))

    def add(tx: Transaction) -> int:
        return tx.run("probe.add", id=shared, more=1)

    async def main() -> None:
        async with anyio.create_task_group() as tasks, a_session(probe) as session:
            await session.execute("update probe set note = 'held'")
            for _ in range(50):
                tasks.start_soon(probe.database.write_async, add)
                tasks.start_soon(probe.database.read_async, numbers_in)
            # The test passes without; with it they have time to take what threads there are.
            await anyio.sleep(0.1)
            await probe.database.write_async(probe.insert(1_000))
            assert await probe.database.read_async(numbers_in) == [0, 1_000]
            await session.execute("update probe set note = 'let go'")

    run(event_loop, main)

    assert probe.numbers() == [50, 1_000]


def test_a_read_only_async_session_refuses_writes(probe: Probe, event_loop: str) -> None:
    async def main() -> None:
        async with a_session(probe, read_only=True) as session:
            assert await probe.database.read_async(numbers_in) == []
            with pytest.raises(StatementRefused, match="read-only"):
                await probe.database.write_async(probe.insert(1))
        async with a_session(probe, read_only=True, begin_transaction=False) as session:
            with pytest.raises(StatementRefused, match="read-only"):
                await insert(session, probe, 1)

    run(event_loop, main)
    probe.database.write(probe.insert(2))

    assert probe.numbers() == [2]


def test_a_second_transaction_of_the_same_task_is_refused_at_once(
    probe: Probe, event_loop: str
) -> None:
    """Seen to fail without the check: the thread that was to open it waited."""

    async def main() -> None:
        async with a_session(probe) as session:
            with pytest.raises(WouldDeadlock, match="use that session"):
                await a_session(probe).__aenter__()
            async with a_session(probe, begin_transaction=False) as second:
                with pytest.raises(WouldDeadlock, match="use that session"):
                    await second.execute("select 1")
            await insert(session, probe, 1)

    run(event_loop, main)

    assert probe.numbers() == [1]


def test_a_blocking_call_of_another_task_in_the_same_thread(probe: Probe, event_loop: str) -> None:
    """It blocks the loop, and the loop is what would end the session.

    On SQLite it could only wait, so it is refused. On Postgres it has a connection of its own.
    """

    async def other() -> None:
        if probe.database.dialect == "postgres":
            probe.database.write(probe.insert(2))
            return
        with pytest.raises(WouldDeadlock, match="this thread already holds"):
            probe.database.write(probe.insert(2))

    async def main() -> None:
        async with a_session(probe) as session:
            await insert(session, probe, 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other)

    run(event_loop, main)

    assert probe.numbers() == ([1, 2] if probe.database.dialect == "postgres" else [1])


# -- asyncio's own cancellation, which waits for no thread -----------------------------------------


def test_a_session_that_was_cancelled_while_it_opened_holds_nothing(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the abandoned opening: its transaction stayed open for ever."""
    begin, gate = probe.database.begin, Gate()

    has_begun = threading.Event()

    def slow_begin(**options: bool) -> object:
        gate.stop_here()
        opened = begin(**options)
        has_begun.set()
        return opened

    async def main() -> None:
        task = asyncio.ensure_future(a_session(probe).__aenter__())
        await anyio.to_thread.run_sync(gate.reached.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    monkeypatch.setattr(probe.database, "begin", slow_begin)
    asyncio.run(main())
    monkeypatch.undo()

    assert has_begun.wait(PATIENCE_SECONDS)
    wait_until(lambda: nothing_is_held(probe))
    probe.database.write(probe.insert(1))
    assert probe.numbers() == [1]


def nothing_is_held(probe: Probe) -> bool:
    if probe.database.dialect == "postgres":
        return probe.database._pool.in_use == 0  # type: ignore[attr-defined, no-any-return]
    return not probe.database._writer._turn.locked()  # type: ignore[attr-defined]


def test_a_session_that_is_cancelled_in_a_statement_ends_after_it(probe: Probe) -> None:
    """Seen to fail without the lock of the scope: both used the connection at once."""
    gate, insert_one, is_over = Gate(), probe.insert(1), threading.Event()

    def slow(tx: Transaction) -> None:
        gate.stop_here()
        try:
            insert_one(tx)
        finally:
            is_over.set()

    async def hold() -> None:
        async with a_session(probe):
            await probe.database.write_async(slow)

    async def main() -> None:
        task = asyncio.ensure_future(hold())
        await anyio.to_thread.run_sync(gate.reached.wait)
        task.cancel()
        gate.open_soon()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert is_over.wait(PATIENCE_SECONDS)
    probe.database.write(probe.insert(2))

    assert probe.numbers() == [2]

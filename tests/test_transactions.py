"""Transactions: what commits, what is rolled back, and SQL that commits with a task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.context import get_run_context
from embedded_orch.results import get_result_store
from embedded_orch.transactions import (
    CommitMode,
    IsolationLevel,
    TransactionState,
    atransaction,
    get_transaction,
    transaction,
)
from tests.engine.waiting import passed
from tests.opened import opened, states, the_run_of


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    """In memory, for what is about hooks and their order."""
    with opened(":memory:") as orchestrator:
        yield orchestrator


@pytest.fixture
def real(url: str) -> Iterator[Orchestrator]:
    """On each backend in turn."""
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def log() -> list[str]:
    """What hooks were called, in order."""
    return []


def logging_task(log: list[str], name: str, **options: Any) -> Any:
    """A task that returns what it is given, and fails for what is negative."""

    @task(name=name, **options)
    def work(number: int = 1) -> int:
        if number < 0:
            raise ValueError(name)
        return number

    work.on_commit(lambda txn: log.append(f"commit {name}"))
    work.on_rollback(lambda txn: log.append(f"rollback {name}"))
    return work


# -- blocks --------------------------------------------------------------------------------------


def test_block_commits_its_tasks_at_its_end(orch: Orchestrator, log: list[str]) -> None:
    one, two = logging_task(log, "one"), logging_task(log, "two")

    @flow
    def body() -> None:
        with transaction() as txn:
            one()
            two()
            log.append("end")
            assert txn.is_active()
        assert txn.is_committed()

    body()

    assert log == ["end", "commit one", "commit two"]


def test_block_that_raises_undoes_its_tasks_the_last_one_first(
    orch: Orchestrator, log: list[str]
) -> None:
    one, two, three = (logging_task(log, name) for name in ("one", "two", "three"))

    @flow
    def body() -> None:
        with transaction() as txn:
            one()
            two()
            try:
                three(-1)
            finally:
                assert txn.is_rolled_back()

    with pytest.raises(ValueError, match="three"):
        body()

    assert log == ["rollback two", "rollback one"]
    histories = [states(run) for run in orch.task_runs.find()]
    assert histories == [
        ["Pending", "Running", "Failed"],
        ["Pending", "Running", "Completed", "RolledBack"],
        ["Pending", "Running", "Completed", "RolledBack"],
    ]


def test_task_outside_of_any_block_commits_by_itself(orch: Orchestrator, log: list[str]) -> None:
    one = logging_task(log, "one")

    @flow
    def body() -> None:
        one()
        log.append("after one")
        raise ValueError("the flow")

    with pytest.raises(ValueError, match="the flow"):
        body()

    assert log == ["commit one", "after one"]


@pytest.mark.parametrize(
    ("mode", "expected", "ends_as"),
    [
        (CommitMode.LAZY, ["end", "commit one"], TransactionState.COMMITTED),
        (CommitMode.EAGER, ["commit one", "end"], TransactionState.COMMITTED),
        (CommitMode.OFF, ["end", "rollback one"], TransactionState.ROLLED_BACK),
    ],
)
def test_mode_says_when_a_block_commits(
    orch: Orchestrator,
    log: list[str],
    mode: CommitMode,
    expected: list[str],
    ends_as: TransactionState,
) -> None:
    one = logging_task(log, "one")

    @flow
    def body() -> TransactionState:
        with transaction(commit_mode=mode) as txn:
            one()
            log.append("end")
        return txn.state

    assert body() == ends_as.value
    assert log == expected


def test_block_in_a_block_commits_with_the_outer_one(orch: Orchestrator, log: list[str]) -> None:
    one = logging_task(log, "one")

    @flow
    def body() -> None:
        with transaction() as outer:
            with transaction() as inner:
                one()
            log.append("between")
            assert inner.get_parent() is outer
            assert inner.is_active()
        assert inner.is_committed()

    body()

    assert log == ["between", "commit one"]


def test_eager_block_in_a_block_that_fails_stays_committed(
    orch: Orchestrator, log: list[str]
) -> None:
    one, two = logging_task(log, "one"), logging_task(log, "two")

    @flow
    def body() -> None:
        with transaction():
            two()
            with transaction(commit_mode=CommitMode.EAGER):
                one()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        body()

    assert log == ["commit one", "rollback two"]


def test_failure_that_is_caught_undoes_the_block_all_the_same(
    orch: Orchestrator, log: list[str]
) -> None:
    one, two = logging_task(log, "one"), logging_task(log, "two")

    @flow
    def body() -> None:
        with transaction() as txn:
            one()
            with pytest.raises(ValueError, match="two"):
                two(-1)
            assert txn.is_rolled_back()

    body()

    assert log == ["rollback one"]


def test_attempt_that_is_retried_leaves_the_block_alone(orch: Orchestrator, log: list[str]) -> None:
    """In Prefect the first failure undoes the block, although the task completes."""
    one, attempts = logging_task(log, "one"), []

    @task(retries=1)
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("not yet")
        return 1

    @flow
    def body() -> None:
        with transaction():
            one()
            flaky()

    body()

    assert log == ["commit one"]


def test_tasks_that_a_task_calls_are_a_part_of_it(orch: Orchestrator, log: list[str]) -> None:
    one = logging_task(log, "one")

    @task
    def outer() -> None:
        one()
        raise ValueError("outer")

    @flow
    def body() -> None:
        outer()

    with pytest.raises(ValueError, match="outer"):
        body()

    assert log == ["rollback one"]


def test_tasks_of_a_flow_that_a_block_calls_are_undone_with_it(
    orch: Orchestrator, log: list[str]
) -> None:
    one = logging_task(log, "one")

    @flow
    def child() -> int:
        return int(one())

    @flow
    def body() -> None:
        with transaction():
            child()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        body()

    assert log == ["rollback one"]
    assert orch.flow_runs.count(flow_name="child", state_type="COMPLETED") == 1


def test_submitted_tasks_are_a_part_of_their_block(orch: Orchestrator, log: list[str]) -> None:
    one = logging_task(log, "one")

    @flow
    def body() -> None:
        with transaction():
            one.map([1, 2]).result()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        body()

    assert log == ["rollback one", "rollback one"]


# -- hooks and data --------------------------------------------------------------------------------


def test_hook_that_fails_on_commit_rolls_back(orch: Orchestrator, log: list[str]) -> None:
    one = logging_task(log, "one")

    @one.on_commit
    def boom(txn: Any) -> None:
        raise RuntimeError("boom")

    @flow
    def body() -> int:
        return int(one(3))

    assert body() == 3
    assert log == ["commit one", "rollback one"]
    assert states(the_run_of(orch, one))[-1] == "RolledBack"


def test_hook_that_fails_on_rollback_keeps_nobody_from_it(
    orch: Orchestrator, log: list[str]
) -> None:
    one, two = logging_task(log, "one"), logging_task(log, "two")

    @two.on_rollback
    def boom(txn: Any) -> None:
        raise RuntimeError("boom")

    @flow
    def body() -> None:
        with transaction():
            one()
            two()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        body()

    assert log == ["rollback two", "rollback one"]


def test_hooks_read_what_was_set_around_them(orch: Orchestrator) -> None:
    found: list[Any] = []

    @task(on_rollback=[lambda txn: found.append(txn.get("paths"))])
    def one() -> None:
        assert get_transaction() is not None

    @flow
    def body() -> None:
        with transaction() as txn:
            paths = ["a"]
            txn.set("paths", paths)
            paths.append("b")
            one()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        body()

    assert found == [["a"]]


def test_what_nobody_has_set_is_an_error_or_the_default(orch: Orchestrator) -> None:
    with transaction() as txn:
        assert txn.get("missing", None) is None
        with pytest.raises(ValueError, match="'missing'"):
            txn.get("missing")


def test_no_transaction_is_active_outside_of_blocks_and_tasks(orch: Orchestrator) -> None:
    assert get_transaction() is None
    with transaction() as txn:
        assert get_transaction() is txn
    assert get_transaction() is None


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_asynchronous_hooks_are_awaited(orch: Orchestrator, log: list[str], loop: str) -> None:
    @task
    async def one() -> int:
        await anyio.sleep(0)
        return 1

    @one.on_rollback
    async def undo(txn: Any) -> None:
        await anyio.sleep(0)
        log.append("rollback one")

    @flow
    async def body() -> None:
        async with atransaction():
            await one()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        anyio.run(body, backend=loop)

    assert log == ["rollback one"]


# -- after a crash ---------------------------------------------------------------------------------


def test_task_that_was_rolled_back_runs_again_when_the_run_is_resumed(real: Orchestrator) -> None:
    calls: list[str] = []
    fails = [True]

    @task
    def one() -> int:
        calls.append("one")
        return len(calls)

    @flow
    def body() -> int:
        with transaction():
            value = one()
            if fails[0]:
                raise ValueError("late")
        return value

    with pytest.raises(ValueError, match="late"):
        body()
    fails[0] = False

    assert body.resume(next(real.flow_runs.find()).id) == 2
    assert calls == ["one", "one"]


def test_task_that_is_taken_from_the_record_is_rolled_back_too(
    orch: Orchestrator, log: list[str]
) -> None:
    """A crash after a task of a block; the block fails in the resumed run."""
    one = logging_task(log, "one")
    errors_of: list[BaseException] = [KeyboardInterrupt(), ValueError("late")]

    @flow
    def body() -> None:
        one()
        with transaction():
            one(2)
            raise errors_of.pop(0)

    with pytest.raises(KeyboardInterrupt):
        body()
    assert log == ["commit one", "rollback one"]
    log.clear()

    with pytest.raises(ValueError, match="late"):
        body.resume(next(orch.flow_runs.find()).id)
    assert log[-1:] == ["rollback one"]


# -- records by key --------------------------------------------------------------------------------


class Shelf:
    """A store in a dict."""

    def __init__(self, *, has_locks: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self.locks: dict[str, threading.Lock] = {}
        self.has_locks = has_locks

    def exists(self, key: str) -> bool:
        return key in self.values

    def read(self, key: str, holder: str | None = None) -> Any:
        return type("Record", (), {"result": self.values[key]})()

    def write(
        self, obj: Any, key: str | None = None, expiration: Any = None, holder: str | None = None
    ) -> None:
        if obj == "unstorable":
            raise errors.ValueNotStorable("no")
        if obj == "broken":
            raise OSError("no disk")
        assert key is not None
        self.values[key] = obj

    def supports_isolation_level(self, level: Any) -> bool:
        return self.has_locks or level == IsolationLevel.READ_COMMITTED

    def acquire_lock(
        self, key: str, holder: str | None = None, timeout: float | None = None
    ) -> bool:
        return self.locks.setdefault(key, threading.Lock()).acquire(timeout=60)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        self.locks[key].release()


def test_block_with_a_key_is_done_once(orch: Orchestrator) -> None:
    store, done = Shelf(), []
    for _ in range(2):
        with transaction(key="day 1", store=store) as txn:
            if not txn.is_committed():
                done.append(1)
                txn.stage("loaded")
        record = txn.read()
        assert record.result == "loaded"

    assert done == [1]


def test_overwriting_does_it_again(orch: Orchestrator) -> None:
    store = Shelf()
    for value in ("old", "new"):
        with transaction(key="day 1", store=store, overwrite=True) as txn:
            assert not txn.is_committed()
            txn.stage(value)

    assert store.values == {"day 1": "new"}


def test_block_that_fails_leaves_no_record(orch: Orchestrator) -> None:
    store = Shelf()
    with pytest.raises(ValueError, match="late"), transaction(key="day 1", store=store) as txn:
        txn.stage("loaded")
        raise ValueError("late")

    assert store.values == {}


@pytest.mark.parametrize(
    ("value", "ends_as"), [("unstorable", "COMMITTED"), ("broken", "ROLLED_BACK")]
)
def test_value_that_cannot_be_stored_is_warned_about_and_a_broken_store_rolls_back(
    orch: Orchestrator, value: str, ends_as: str
) -> None:
    with transaction(key="day 1", store=Shelf()) as txn:
        txn.stage(value)

    assert txn.state == ends_as


def test_serializable_blocks_of_one_key_take_turns(orch: Orchestrator) -> None:
    store, inside, most = Shelf(has_locks=True), [0], [0]
    waits = threading.Event()

    def work() -> None:
        with transaction(
            key="k", store=store, isolation_level=IsolationLevel.SERIALIZABLE, overwrite=True
        ):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            passed(waits)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    waits.set()
    for thread in threads:
        thread.join(60)

    assert most == [1]
    assert not store.locks["k"].locked()


def test_serializable_needs_a_store_with_locks(orch: Orchestrator) -> None:
    with (
        pytest.raises(errors.ConfigurationError, match="lock manager"),
        transaction(key="k", store=Shelf(), isolation_level="SERIALIZABLE"),
    ):
        pytest.fail("the block was entered")


def test_records_are_in_the_database_where_no_store_is_given(real: Orchestrator) -> None:
    done = []
    for _ in range(2):
        with transaction(key="day 1") as txn:
            if not txn.is_committed():
                done.append(1)
                txn.stage({"rows": (1, 2)})
        assert txn.read().result == {"rows": (1, 2)}

    assert done == [1]
    store = get_result_store()
    assert store.exists("day 1")
    with pytest.raises(errors.MissingResult, match="'day 2'"):
        store.read("day 2")


def test_value_of_a_store_expires(real: Orchestrator) -> None:
    store = get_result_store()
    store.write(1, "gone", expiration=datetime.now(UTC) - timedelta(seconds=1))
    store.write(2, "there", expiration=datetime.now(UTC) + timedelta(hours=1))

    assert (store.exists("gone"), store.exists("there")) == (False, True)
    with pytest.raises(errors.ConfigurationError, match="characters"):
        store.write(3, "x" * 2001)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_asynchronous_blocks_have_records_too(real: Orchestrator, loop: str) -> None:
    async def main() -> list[bool]:
        found = []
        for _ in range(2):
            async with atransaction(key="day 1", isolation_level="SERIALIZABLE") as txn:
                found.append(txn.is_committed())
                txn.stage(1)
        store = get_result_store()
        await store.awrite(2, "day 2")
        assert await store.aexists("day 2")
        assert (await store.aread("day 2")).result == 2
        return found

    assert anyio.run(main, backend=loop) == [False, True]


def test_blocks_of_one_key_take_turns_by_the_database(real: Orchestrator) -> None:
    store, inside, most = get_result_store(), [0], [0]

    def work() -> None:
        with transaction(key="k", isolation_level="SERIALIZABLE", overwrite=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            store.exists("k")
            inside[0] -= 1

    threads = [threading.Thread(target=copy_context().run, args=(work,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert most == [1]
    assert not store.is_locked("k")


def test_key_that_another_has_locked_is_not_written(real: Orchestrator) -> None:
    store = get_result_store()
    assert store.acquire_lock("k", "me")

    assert not store.acquire_lock("k", "you", timeout=0.01)
    with pytest.raises(errors.DatabaseBusy, match="'k'"):
        store.write(1, "k", holder="you")
    store.write(1, "k", holder="me")
    store.release_lock("k", "me")
    assert store.wait_for_lock("k", timeout=1)
    with pytest.raises(ValueError, match="does not hold"):
        store.release_lock("k", "me")


# -- SQL that commits with a task ------------------------------------------------------------------


def rows(orch: Orchestrator) -> list[int]:
    return sorted(row[0] for row in orch.sql("select number from loaded"))


@pytest.fixture
def loaded(real: Orchestrator) -> Orchestrator:
    """With a table of the user's own."""
    with real.session() as session:
        session.execute("create table loaded (number integer)")
    return real


def insert(number: int) -> None:
    connection: Any = get_run_context().transaction.connection
    connection.execute("insert into loaded values (:number)", {"number": number})


def test_own_sql_is_committed_with_the_completion(loaded: Orchestrator) -> None:
    @task
    def load() -> int:
        insert(1)
        insert(2)
        return 2

    @flow
    def body() -> int:
        return load()

    assert body() == 2
    assert rows(loaded) == [1, 2]
    assert states(the_run_of(loaded, load)) == ["Pending", "Running", "Completed"]


def test_own_sql_of_an_attempt_that_fails_is_undone(loaded: Orchestrator) -> None:
    attempts: list[int] = []

    @task(retries=1)
    def load() -> None:
        attempts.append(1)
        insert(len(attempts))
        if len(attempts) < 2:
            raise ValueError("not yet")

    @flow
    def body() -> None:
        load()

    body()

    assert rows(loaded) == [2]


def test_own_sql_of_an_attempt_that_is_interrupted_is_undone(loaded: Orchestrator) -> None:
    @task
    def load() -> None:
        insert(1)
        raise KeyboardInterrupt

    @flow
    def body() -> None:
        load()

    with pytest.raises(KeyboardInterrupt):
        body()

    assert rows(loaded) == []
    assert states(the_run_of(loaded, load)) == ["Pending", "Running", "Crashed"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_own_sql_of_an_async_task_is_awaited(loaded: Orchestrator, loop: str) -> None:
    @task
    async def load(number: int) -> None:
        connection: Any = get_run_context().transaction.connection
        await connection.execute("insert into loaded values (:n)", {"n": number})
        await anyio.sleep(0)
        if number < 0:
            raise ValueError("negative")

    @flow
    async def body() -> None:
        await load(1)
        with pytest.raises(ValueError, match="negative"):
            await load(-1)

    anyio.run(body, backend=loop)

    assert rows(loaded) == [1]


def test_tasks_that_are_called_meanwhile_are_a_part_of_it(loaded: Orchestrator) -> None:
    @task
    def inner() -> int:
        return 1

    @task
    def load() -> None:
        insert(1)
        inner()
        raise ValueError("late")

    @flow
    def body() -> None:
        load()

    with pytest.raises(ValueError, match="late"):
        body()

    assert rows(loaded) == []
    assert loaded.task_runs.count(task_key=inner.task_key) == 0


def test_connection_of_an_attempt_that_ended_runs_nothing(loaded: Orchestrator) -> None:
    kept: list[Any] = []

    @task
    def load() -> None:
        insert(1)
        kept.append(get_run_context().transaction.connection)

    @flow
    def body() -> None:
        load()

    body()

    with pytest.raises(errors.TransactionFailed, match="has ended"):
        kept[0].execute("delete from loaded")
    assert rows(loaded) == [1]


def test_block_in_a_task_has_its_connection_and_one_in_a_flow_has_none(
    loaded: Orchestrator,
) -> None:
    @task
    def load() -> None:
        with transaction() as txn:
            connection: Any = txn.connection
            connection.execute("insert into loaded values (7)")

    @flow
    def body() -> None:
        load()
        with transaction() as txn, pytest.raises(errors.MissingContextError, match="a task"):
            _ = txn.connection

    body()

    assert rows(loaded) == [7]

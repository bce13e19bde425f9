"""Lock managers: who holds a key, who waits, and what ends a lock."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from embedded_orch import task
from embedded_orch.cache_policies import INPUTS
from embedded_orch.locking.filesystem import FileSystemLockManager
from embedded_orch.locking.memory import MemoryLockManager
from embedded_orch.locking.protocol import LockManager
from tests.engine.waiting import until
from tests.opened import opened
from tests.warm_parent import run_forked


@pytest.fixture(params=["memory", "files"])
def locks(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return MemoryLockManager()
    return FileSystemLockManager(tmp_path / "locks")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """Of the test, since the locks in memory are those of the process."""
    return f"{request.node.name}/../with separators"


def test_it_is_a_lock_manager(locks: Any) -> None:
    assert isinstance(locks, LockManager)


def test_one_holds_it_and_others_do_not_get_it(locks: Any, key: str) -> None:
    assert locks.acquire_lock(key, "one")
    assert locks.acquire_lock(key, "one")
    assert not locks.acquire_lock(key, "other", acquire_timeout=0.01)
    assert locks.is_locked(key)
    assert locks.is_lock_holder(key, "one")
    assert not locks.is_lock_holder(key, "other")

    locks.release_lock(key, "one")

    assert not locks.is_locked(key)
    assert locks.acquire_lock(key, "other")
    locks.release_lock(key, "other")


def test_only_the_holder_gives_it_back(locks: Any, key: str) -> None:
    locks.acquire_lock(key, "one")

    with pytest.raises(ValueError, match="'other' does not hold"):
        locks.release_lock(key, "other")

    locks.release_lock(key, "one")
    with pytest.raises(ValueError, match="'one' does not hold"):
        locks.release_lock(key, "one")


def test_a_waiter_gets_it_when_it_is_given_back(locks: Any, key: str) -> None:
    locks.acquire_lock(key, "one")
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(locks.acquire_lock(key, "other")))
    thread.start()

    locks.release_lock(key, "one")

    thread.join(30)
    assert got == [True]
    locks.release_lock(key, "other")


def test_it_is_free_by_itself_after_its_time(locks: Any, key: str) -> None:
    locks.acquire_lock(key, "one", hold_timeout=0.01)

    assert locks.wait_for_lock(key, timeout=30)
    assert not locks.is_lock_holder(key, "one")


def test_waiting_ends_with_its_time(locks: Any, key: str) -> None:
    locks.acquire_lock(key, "one")

    assert not locks.wait_for_lock(key, timeout=0.01)

    locks.release_lock(key, "one")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_wait_without_blocking_their_loop(locks: Any, key: str, backend: str) -> None:
    async def main() -> list[str]:
        events: list[str] = []

        async def wait() -> None:
            assert await locks.aacquire_lock(key, "other")
            events.append("taken")

        await locks.aacquire_lock(key, "one")
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.01)
            events.append("given back")
            locks.release_lock(key, "one")
        locks.release_lock(key, "other")
        assert await locks.await_for_lock(key)
        return events

    assert anyio.run(main, backend=backend) == ["given back", "taken"]


def test_another_process_is_excluded_and_its_death_frees_the_key(tmp_path: Path) -> None:
    program = """
        import os, sys
        from embedded_orch.locking.filesystem import FileSystemLockManager
        locks = FileSystemLockManager(sys.argv[1])
        print(locks.acquire_lock("key", "program", acquire_timeout=0))
        sys.stdout.flush()
        os._exit(0)
    """
    locks = FileSystemLockManager(tmp_path)
    locks.acquire_lock("key", "here")
    assert run_forked(program, tmp_path).stdout == "False\n"
    locks.release_lock("key", "here")
    assert run_forked(program, tmp_path).stdout == "True\n"

    assert locks.acquire_lock("key", "here", acquire_timeout=0)


def test_a_policy_uses_its_lock_manager(locks: Any) -> None:
    policy = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=locks)
    computing, goes_on = threading.Event(), threading.Event()
    calls: list[int] = []

    @task(cache_policy=policy)
    def slow(number: int) -> int:
        calls.append(number)
        computing.set()
        assert goes_on.wait(30)
        return number

    with opened(":memory:") as orch:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(slow(1))) for _ in range(2)]
        threads[0].start()
        assert computing.wait(30)
        threads[1].start()
        until(lambda: orch.sql("select count(*) from task_run").scalar() == 1, "the first")
        goes_on.set()
        for thread in threads:
            thread.join(30)

        assert (answers, calls) == ([1, 1], [1])
        assert orch.sql("select count(*) from cache_lock").scalar() == 0

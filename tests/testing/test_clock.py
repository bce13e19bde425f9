"""The virtual clock: whole days of retries, pauses and sleeps in no time, on every backend."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from embedded_orch import (
    errors,
    flow,
    pause_flow_run,
    resume_flow_run,
    sleep_for,
    task,
    testing,
)
from embedded_orch.db.bell import Bell
from embedded_orch.testing import VirtualClock
from tests.opened import flow_runs, the_flow_run

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LOOPS = ["asyncio", "trio"]


@task(retries=2, retry_delay_seconds=3600)
def flaky(attempts: list[int]) -> str:
    attempts.append(1)
    if len(attempts) % 3:
        raise ValueError("not yet")
    return "done"


@task(retries=1, retry_delay_seconds=3600)
async def flaky_later(name: str) -> str:
    if name not in SEEN:
        SEEN.append(name)
        raise ValueError("not yet")
    return name


SEEN: list[str] = []


class Work:
    is_in_progress = True


class TestClockThatJumps:
    def test_retries_take_their_time_on_it_and_none_for_real(self, url: str) -> None:
        @flow(validate_parameters=False)
        def report() -> str:
            return flaky([])

        with testing.open(url) as orch:
            assert report() == "done"

            assert orch.clock.now - START == 2 * HOUR
            run = the_flow_run(orch)
            assert run.end_time is not None
            assert run.end_time - START == 2 * HOUR

    def test_retries_of_flows_do(self, url: str) -> None:
        attempts: list[int] = []

        @flow(retries=1, retry_delay_seconds=86400)
        def report() -> str:
            attempts.append(1)
            if len(attempts) == 1:
                raise ValueError("not yet")
            return "done"

        with testing.open(url) as orch:
            assert report() == "done"

            assert orch.clock.now - START == 24 * HOUR

    @pytest.mark.parametrize("loop", LOOPS)
    def test_retries_of_asynchronous_code_do(self, url: str, loop: str) -> None:
        SEEN.clear()

        @flow
        async def report() -> list[str]:
            return [await flaky_later("one"), await flaky_later("two")]

        with testing.open(url) as orch:
            assert anyio.run(report, backend=loop) == ["one", "two"]

            assert orch.clock.now - START == 2 * HOUR

    def test_those_who_wait_at_one_time_wait_for_the_same_time(self, url: str) -> None:
        @flow(validate_parameters=False)
        def report() -> list[str]:
            return flaky.map([[], [], []]).result()

        with testing.open(url) as orch:
            assert report() == ["done"] * 3

            assert 2 * HOUR <= orch.clock.now - START <= 4 * HOUR

    def test_it_does_not_while_the_database_works_for_somebody(self) -> None:
        clock = VirtualClock(START)
        database = Work()
        clock.watch(database)
        sleeper = threading.Thread(target=clock.doze, args=(Bell(), 3600))
        sleeper.start()
        sleeper.join(0.1)
        assert clock.now == START

        database.is_in_progress = False
        sleeper.join(30)

        assert clock.now == START + HOUR

    def test_durable_sleeps_and_the_time_of_a_pause_do(self, url: str) -> None:
        @flow
        def report() -> None:
            sleep_for(timedelta(days=30))
            pause_flow_run(timeout=3600)

        with testing.open(url) as orch:
            with pytest.raises(errors.FlowPauseTimeout):
                report()

            assert orch.clock.now - START >= timedelta(days=30) + HOUR


class TestClockThatTheTestMoves:
    def test_stands_still_until_then(self, url: str) -> None:
        @flow(validate_parameters=False)
        def report() -> str:
            return flaky([])

        clock = VirtualClock(START, jumps=False)
        with testing.open(url, clock=clock) as orch:
            thread = threading.Thread(target=report)
            thread.start()
            for hour in (1, 2):
                clock.wait_until_waiting()
                [run] = flow_runs(orch)
                assert run.state_name == "Running"
                clock.advance(HOUR / 2)
                assert clock.waiting == 1
                clock.advance(HOUR / 2)
                assert clock.now == START + hour * HOUR
            thread.join(30)

            assert the_flow_run(orch).state_name == "Completed"

    def test_lets_a_paused_run_be_resumed_at_once(self, url: str) -> None:
        @flow
        def report() -> str:
            pause_flow_run(timeout=3600, poll_interval=3600)
            return "done"

        clock = VirtualClock(START, jumps=False)
        with testing.open(url, clock=clock) as orch:
            thread = threading.Thread(target=report)
            thread.start()
            clock.wait_until_waiting()
            resume_flow_run(the_flow_run(orch).id)
            thread.join(30)

            assert the_flow_run(orch).state_name == "Completed"
            assert clock.now == START

    @pytest.mark.parametrize("loop", LOOPS)
    def test_gives_up_a_wait_that_is_cancelled(self, loop: str) -> None:
        SEEN.clear()
        clock = VirtualClock(START, jumps=False)

        @flow
        async def report() -> str:
            return await flaky_later("one")

        async def cancelled() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(report)
                while not clock.waiting:
                    await anyio.sleep(0)
                group.cancel_scope.cancel()
            while clock.waiting:
                await anyio.sleep(0)

        with testing.open(clock=clock) as orch:
            anyio.run(cancelled, backend=loop)

            assert the_flow_run(orch).state_name == "Crashed"

    def test_wakes_in_the_order_of_time(self) -> None:
        clock, woken = VirtualClock(START, jumps=False), []

        def wait(hours: int) -> None:
            clock.doze(Bell(), hours * 3600)
            woken.append(hours)

        threads = [threading.Thread(target=wait, args=(hours,)) for hours in (3, 1, 2)]
        for thread in threads:
            thread.start()
        clock.wait_until_waiting(3)
        for waiting in (2, 1, 0):
            clock.advance(HOUR)
            assert clock.waiting == waiting
            while len(woken) < 3 - waiting:
                threading.Event().wait(0.001)
        for thread in threads:
            thread.join(30)

        assert woken == [1, 2, 3]

    def test_says_how_many_wait_when_too_few_do(self) -> None:
        with pytest.raises(TimeoutError, match="0 wait on the virtual clock after 0 s, and not 1"):
            VirtualClock().wait_until_waiting(timeout_seconds=0)

    def test_rings_before_its_time(self) -> None:
        clock, bell = VirtualClock(START, jumps=False), Bell()
        bell.ring()

        assert clock.doze(bell, 3600) is True
        assert clock.doze(bell, 0) is False
        assert repr(clock) == "<VirtualClock 2026-01-01T00:00:00+00:00, 0 waiting>"

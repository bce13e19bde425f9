"""The crash button and the write that fails, on every backend."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import embedded_orch
from embedded_orch import Flow, errors, flow, get_run_logger, task, testing
from embedded_orch.concurrency.sync import concurrency
from tests.opened import flow_runs, runs_of, the_flow_run, the_run_of

CALLS: list[str] = []
ENDS: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    CALLS.clear()
    ENDS.clear()


@task
def load() -> str:
    CALLS.append("load")
    get_run_logger().info("loads")
    return "rows"


@task
def total(rows: str) -> int:
    CALLS.append("total")
    return len(rows)


def note_end(flow: Any, flow_run: Any, state: Any) -> None:
    ENDS.append(state.name)


@flow(on_completion=[note_end], on_crashed=[note_end])
def report() -> int:
    return total(load())


@flow(on_crash="resume")
def lasting() -> int:
    return total(load())


@flow
def submitting() -> int:
    return total.submit(load.submit()).result()


@task
async def load_later() -> str:
    CALLS.append("load")
    return "rows"


@flow
async def later() -> str:
    return await load_later()


@flow
def outer() -> int:
    return report()


class TestCrash:
    @pytest.mark.parametrize("called", [report, submitting], ids=["called", "submitted"])
    def test_is_resumed_where_it_was(self, url: str, called: Flow[[], int]) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("total"):
                called()
            [run] = flow_runs(orch)
            assert run.state_name == "Crashed"
            assert "died" in (run.state.message or "")
            assert [each.state_name for each in runs_of(orch, total)] == ["Crashed"]

            assert called.resume(run.id) == 4

        assert CALLS == ["load", "total"]

    def test_after_a_function_loses_its_result(self, url: str) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("load", moment="after"):
                report()

            assert report.resume(the_flow_run(orch).id) == 4

        assert CALLS == ["load", "load", "total"]

    def test_can_be_at_a_later_call_and_at_a_flow(self, url: str) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("report", moment="after", call=2):
                report()
                report()

            assert [run.state_name for run in flow_runs(orch)] == ["Completed", "Crashed"]
            assert report.resume(flow_runs(orch)[1].id) == 4

        assert CALLS == ["load", "total", "load", "total"]

    def test_leaves_a_lasting_run_to_be_resumed(self, url: str) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("total"):
                lasting()
            assert the_flow_run(orch).state_name == "Running"

            [resumed] = orch.resume_crashed(lasting)

            assert resumed.state_name == "Completed"
        assert CALLS == ["load", "total"]

    def test_in_a_flow_that_a_flow_called(self, url: str) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("total"):
                outer()
            [root] = flow_runs(orch, flow_name="outer")

            assert outer.resume(root.id) == 4

        assert CALLS == ["load", "total"]

    @pytest.mark.parametrize("loop", ["asyncio", "trio"])
    def test_of_asynchronous_code(self, url: str, loop: str) -> None:
        async def in_a_group() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(later)

        with testing.open(url) as orch:
            with orch.crash_at("load_later"):
                anyio.run(in_a_group, backend=loop)
            run_id = the_flow_run(orch).id
            assert CALLS == []

            assert anyio.run(later.resume, run_id, backend=loop) == "rows"

    def test_calls_no_hook_and_writes_no_state_until_somebody_finds_it(self, url: str) -> None:
        with testing.open(url) as orch:
            with orch.crash_at("total"):
                report()
            assert ENDS == []

            orch.run_owed_hooks(report)

        assert ENDS == ["Crashed"]

    def test_frees_the_slots_of_the_dead(self, url: str) -> None:
        @flow
        def holding() -> str:
            with concurrency("db"):
                return load()

        with testing.open(url) as orch:
            orch.concurrency_limits.create("db", 1)
            with orch.crash_at("load"):
                holding()

            assert orch.concurrency_limits.get("db").holders == []
            assert holding() == "rows"

    def test_kills_what_another_process_would_see_as_dead(self, url: str) -> None:
        if url == ":memory:":
            pytest.skip("no other process can look")
        with testing.open(url) as orch:
            with orch.crash_at("total"):
                lasting()
            with embedded_orch.open(url) as other:
                assert other.resume_crashed(lasting)[0].state_name == "Completed"

    def test_is_no_exception_that_a_flow_could_catch(self, url: str) -> None:
        @flow
        def careful() -> str:
            try:
                return load()
            except Exception:
                return "caught"

        with testing.open(url) as orch:
            with orch.crash_at("load"):
                careful()

            assert careful.resume(the_flow_run(orch).id) == "rows"

    def test_that_nobody_came_to_is_an_error(self) -> None:
        with (
            testing.open() as orch,
            pytest.raises(AssertionError, match=r"'lode' was called 0 time\(s\)"),
            orch.crash_at("lode"),
        ):
            report()

    def test_does_not_hide_what_else_is_raised(self) -> None:
        with testing.open() as orch, pytest.raises(KeyError), orch.crash_at("load"):
            raise KeyError("something else")


class TestWriteThatFails:
    def test_is_told_to_the_caller_and_repairs_itself_with_a_resume(self, url: str) -> None:
        with testing.open(url) as orch:
            before = orch.writes
            report()
            writes = orch.writes - before
            for n in range(1, writes + 1):
                known = {run.id for run in flow_runs(orch)}
                with orch.fail_write(n):
                    state = _state_of(report)
                new = [run for run in flow_runs(orch) if run.id not in known]
                if new and state != "Completed":
                    assert report.resume(new[0].id) == 4
                assert n > 1 or not new

        assert writes >= 4

    def test_raises_what_it_is_told(self, url: str) -> None:
        with testing.open(url) as orch:
            full = errors.DatabaseFull("no room")
            with pytest.raises(errors.DatabaseFull, match="no room"), orch.fail_write(1, full):
                report()

            assert flow_runs(orch) == []

    def test_can_be_committed_all_the_same(self, url: str) -> None:
        with testing.open(url) as orch:
            with (
                pytest.raises(errors.DatabaseUnavailable),
                orch.fail_write(1, is_committed=True),
            ):
                report()

            assert report.resume(the_flow_run(orch).id) == 4

    @pytest.mark.parametrize("loop", ["asyncio", "trio"])
    def test_of_asynchronous_code(self, url: str, loop: str) -> None:
        with testing.open(url) as orch:
            with pytest.raises(errors.DatabaseUnavailable), orch.fail_write(1):
                anyio.run(later, backend=loop)
            assert flow_runs(orch) == []

        # Another process: the first one would look first what became of its run.
        with testing.open(url) as orch:
            with (
                pytest.raises(errors.DatabaseUnavailable),
                orch.fail_write(1, is_committed=True),
            ):
                anyio.run(later, backend=loop)
            assert len(flow_runs(orch)) == 1

    def test_that_never_came_is_an_error(self) -> None:
        with (
            testing.open() as orch,
            pytest.raises(AssertionError, match=r"fail_write\(50\): there were \d write"),
            orch.fail_write(50),
        ):
            report()


class TestOpening:
    def test_gives_an_orchestrator_that_calls_mean(self, url: str) -> None:
        with testing.open(url) as orch:
            assert report() == 4
            assert the_flow_run(orch).state_name == "Completed"
            assert the_run_of(orch, load).state_name == "Completed"

    def test_leaves_a_database_as_it_is_for_whoever_shares_it(self, url: str) -> None:
        if url == ":memory:":
            pytest.skip("each is a database of its own")
        with embedded_orch.open(url) as plain:
            with testing.open(url) as first, testing.open(url) as second:
                assert first.database is second.database is plain.database
                second.close()
                with pytest.raises(errors.DatabaseUnavailable), first.fail_write(1):
                    with first:
                        report()
            with plain:
                assert report() == 4
            assert not {"write", "read", "interception"} & set(vars(plain.database))


def _state_of(called: Flow[[], int]) -> str:
    try:
        return str(called(return_state=True).name)
    except errors.DatabaseUnavailable:
        return "raised"

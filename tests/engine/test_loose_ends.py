"""A task run whose end could not be written does not stay Running when its flow run has ended."""

from __future__ import annotations

from typing import Any

import pytest

from embedded_orch import errors, flow, task
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.orchestrator import Orchestrator
from embedded_orch.runtime import flow_run
from tests.opened import flow_runs, opened, states, the_flow_run, the_run_of


@task(record_start="before")
def load(fail: Any) -> str:
    fail()
    return "rows"


BUSY = errors.DatabaseBusy("another process kept it locked")


def failing_once(
    orchestrator: Orchestrator, patches: pytest.MonkeyPatch, error: BaseException = BUSY
) -> Any:
    """What makes the next write fail, as one does that waited for too long; the first time."""
    database: Any = orchestrator.database
    write = database.write
    calls: list[bool] = []

    def fail_next() -> None:
        calls.append(True)
        if len(calls) > 1:
            return

        def fail(*_: Any, **__: Any) -> Any:
            patches.setattr(database, "write", write)
            raise error

        patches.setattr(database, "write", fail)

    return fail_next


def test_called_flow_whose_end_could_not_be_written_is_crashed_with_its_caller(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: who resumed the caller elsewhere waited while this process lived."""
    with opened(url) as orchestrator:
        fail_next = failing_once(orchestrator, monkeypatch)

        @flow
        def child() -> None:
            fail_next()

        @flow
        def report() -> None:
            child()

        assert report(return_state=True).is_failed()

        called = [run for run in flow_runs(orchestrator) if run.parent_task_run_id is not None]
        assert [run.state_name for run in called] == ["Crashed"]
        assert "its end could not be written" in called[0].state.message


def test_called_flow_whose_interruption_could_not_be_written_is_crashed_with_its_caller(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: it was Running for as long as its process lived."""
    with opened(url) as orchestrator:
        fail_next = failing_once(orchestrator, monkeypatch)

        @flow
        def child() -> None:
            fail_next()
            raise KeyboardInterrupt

        @flow
        def report() -> None:
            child()

        with pytest.raises(KeyboardInterrupt):
            report()

        assert [run.state_name for run in flow_runs(orchestrator)] == ["Crashed", "Crashed"]


def test_called_flow_whose_end_could_not_be_written_is_crashed_with_its_cancelled_caller(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 65689 of the simulation: who resumed the caller elsewhere waited for it for ever."""
    with opened(url) as orchestrator:
        fail_next = failing_once(orchestrator, monkeypatch)

        @flow
        def child() -> None:
            fail_next()

        @flow
        def report() -> None:
            try:
                child()
            except errors.DatabaseBusy:
                orchestrator.flow_runs.cancel(flow_run.id)

        report(return_state=True)

        ends = sorted(run.state_name or "" for run in flow_runs(orchestrator))
        assert ends == ["Cancelled", "Crashed"]


class TestTaskWhoseEndCouldNotBeWritten:
    @pytest.mark.parametrize("is_caught", [False, True])
    def test_is_crashed_with_the_end_of_its_flow_run(
        self, url: str, is_caught: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(url) as orchestrator:
            fail = failing_once(orchestrator, monkeypatch)

            @flow(validate_parameters=False)
            def report() -> None:
                try:
                    load(fail)
                except errors.DatabaseBusy:
                    if not is_caught:
                        raise

            report(return_state=True)

            assert the_flow_run(orchestrator).state_name == ("Completed" if is_caught else "Failed")
            state = the_run_of(orchestrator, load).state
            assert state.name == "Crashed"
            assert state.message == "the database could not be told how it ended"

    @pytest.mark.parametrize("error", [BUSY, KeyboardInterrupt()], ids=["busy", "a second Ctrl-C"])
    def test_is_crashed_with_its_flow_run_when_both_are_interrupted(
        self, url: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to fail: the task run was Running for good."""
        with opened(url) as orchestrator:
            fail_next = failing_once(orchestrator, monkeypatch, error)

            def fail() -> None:
                fail_next()
                raise KeyboardInterrupt

            @flow(validate_parameters=False)
            def report() -> None:
                load(fail)

            with pytest.raises(KeyboardInterrupt):
                report()

            assert the_flow_run(orchestrator).state_name == "Crashed"
            assert states(the_run_of(orchestrator, load))[1:] == ["Running", "Crashed"]

    def test_is_run_again_by_a_retry_of_its_flow(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(url) as orchestrator:
            fail = failing_once(orchestrator, monkeypatch)

            @flow(retries=1, validate_parameters=False)
            def report() -> str:
                return load(fail)

            report(return_state=True)

            assert states(the_run_of(orchestrator, load))[1:] == [
                "Running",
                "Rerunning",
                "Completed",
            ]
            assert the_flow_run(orchestrator).state_name == "Completed"


def a_second(first: Orchestrator) -> Orchestrator:
    """Another owner on the same database."""
    first._shared.users += 1
    return Orchestrator(first._shared, first._databases, first.engine.process)


class TestRunWhoseTakingFailed:
    @pytest.mark.parametrize("is_same_owner", [False, True])
    def test_is_left_to_who_takes_it_then(
        self, url: str, is_same_owner: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A resume that fails at its first write knows the epoch that the next one then has."""
        attempts: list[int] = []

        with opened(url) as first:

            @flow
            def report() -> str:
                attempts.append(1)
                if len(attempts) == 1:
                    raise ValueError("the first attempt fails")
                # As before any other flow that begins there.
                first.engine.unrecorded.settle()
                return the_flow_run(first).state_name or ""

            report(return_state=True)
            run = the_flow_run(first)
            failing_once(first, monkeypatch)()
            with pytest.raises(errors.DatabaseBusy):
                report.resume(run.id)

            with a_second(first) as second, first if is_same_owner else second:
                assert report.resume(run.id) == "Running"

            assert states(the_flow_run(first))[-1] == "Completed"


def busy(*_: Any) -> Any:
    raise errors.DatabaseBusy("another process kept it locked")


class TestSlotsThatCouldNotBeGivenBack:
    def test_are_given_back_in_the_background(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Others may wait for them, and this process may do nothing about slots any more."""
        with opened(url) as orchestrator:
            orchestrator.concurrency_limits.create("db", 1)
            with concurrency("db"):
                failing_once(orchestrator, monkeypatch)()

            assert orchestrator.concurrency_limits.get("db").holders == []

    def test_are_given_back_before_the_process_takes_or_waits_for_more(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to time out without that: the claim would have lasted as long as the process."""
        with opened(url) as orchestrator:
            orchestrator.concurrency_limits.create("db", 1)
            fail_next = failing_once(orchestrator, monkeypatch)
            with concurrency("db"):
                fail_next()
                vars(orchestrator.database)["announce"] = busy
            del vars(orchestrator.database)["announce"]
            assert len(orchestrator.concurrency_limits.get("db").holders) == 1

            with concurrency("db", timeout_seconds=20):
                assert len(orchestrator.concurrency_limits.get("db").holders) == 1

            assert orchestrator.concurrency_limits.get("db").holders == []

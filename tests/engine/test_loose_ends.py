"""A task run whose end could not be written does not stay Running when its flow run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch import errors, flow, task
from tests.opened import opened, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from embedded_orch import Orchestrator


@task(record_start="before")
def load(fail: Any) -> str:
    fail()
    return "rows"


def failing_once(orchestrator: Orchestrator, patches: pytest.MonkeyPatch) -> Any:
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
            raise errors.DatabaseBusy("another process kept it locked")

        patches.setattr(database, "write", fail)

    return fail_next


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

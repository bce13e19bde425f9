"""Inputs of flow runs: typed, sent, received, and by their keys."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors, flow, pause_flow_run, resume_flow_run, runtime
from embedded_orch.input import (
    RunInput,
    create_flow_run_input,
    delete_flow_run_input,
    filter_flow_run_input,
    keyset_from_base_key,
    keyset_from_paused_state,
    read_flow_run_input,
    receive_input,
    send_input,
)
from embedded_orch.states import Paused, Running
from tests.engine.waiting import until
from tests.opened import Clock, opened, the_flow_run
from tests.store.builders import a_flow_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import Orchestrator


class Greeting(RunInput):
    name: str
    times: int = 1


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def test_inputs_are_written_read_found_and_deleted(orch: Orchestrator) -> None:
    run_id = a_flow_run(orch.database, orch.engine.process)
    for number in (2, 1, 3):
        create_flow_run_input(f"part-{number}", {"n": number}, run_id, sender="me")

    with pytest.raises(errors.ConfigurationError, match="has an input with the key"):
        create_flow_run_input("part-1", 0, run_id)
    with pytest.raises(errors.ConfigurationError, match="lower-case"):
        create_flow_run_input("Part 1", 0, run_id)
    assert read_flow_run_input("part-2", run_id) == {"n": 2}
    assert read_flow_run_input("part-9", run_id) is None
    found = filter_flow_run_input("part", 10, {"part-1"}, run_id)
    assert [row.key for row in found] == ["part-2", "part-3"]
    assert found[0].sender == "me"
    assert filter_flow_run_input("par-", 10, None, run_id) == []
    delete_flow_run_input("part-2", run_id)
    assert read_flow_run_input("part-2", run_id) is None


def test_typed_input_of_a_pause_has_its_initial_data(memory: Orchestrator) -> None:
    @flow
    def parent() -> tuple[Any, Any]:
        wanted = Greeting.with_initial_data(description="who is it?", times=3)
        found = pause_flow_run(wait_for_input=wanted)
        return (found.name, found.times), found.metadata.key

    def answer() -> None:
        until(lambda: memory.flow_runs.count(state_name="Paused") == 1, "a pause")
        with memory:
            run_id = the_flow_run(memory).id
            said.append(read_flow_run_input("paused-1-description", run_id))
            resume_flow_run(run_id, {"name": "Ada"})

    said: list[Any] = []
    thread = threading.Thread(target=answer)
    thread.start()

    assert parent() == (("Ada", 3), "paused-1-response")
    thread.join()
    assert said == ["who is it?"]
    with pytest.raises(errors.ConfigurationError, match="has no field"):
        Greeting.with_initial_data(nmae="x")


def test_runs_send_each_other_inputs_and_respond(memory: Orchestrator) -> None:
    @flow
    def server() -> list[str]:
        ready.append(runtime.flow_run.id)
        names = []
        for greeting in Greeting.receive(timeout=30):
            names.append(greeting.name)
            greeting.respond(f"hello {greeting.name}")
            if greeting.name == "last":
                break
        return names

    @flow
    def client(server_id: str) -> list[str]:
        Greeting(name="first").send_to(server_id)
        Greeting(name="last").send_to(server_id)
        answers = receive_input(str, timeout=30)
        return [answers.next(), answers.next()]

    def serve() -> None:
        with memory:
            served.append(server())

    ready: list[Any] = []
    served: list[list[str]] = []
    thread = threading.Thread(target=serve)
    thread.start()
    until(lambda: ready, "the server")

    assert client(ready[0]) == ["hello first", "hello last"]
    thread.join()
    assert served == [["first", "last"]]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_inputs_are_received_asynchronously(memory: Orchestrator, backend: str) -> None:
    @flow
    async def parent() -> list[int]:
        run_id = runtime.flow_run.id
        assert run_id is not None
        await send_input(1, run_id)
        await send_input(2, run_id)
        return [number async for number in receive_input(int, timeout=0)]

    assert anyio.run(parent, backend=backend) == [1, 2]


def test_waiting_for_an_input_ends_in_time() -> None:
    clock = Clock()
    with opened(":memory:", clock) as orchestrator:
        run_id = a_flow_run(orchestrator.database, orchestrator.engine.process)
        assert list(receive_input(int, timeout=60, flow_run_id=run_id)) == []
        with pytest.raises(TimeoutError, match="received no int"):
            next(receive_input(int, timeout=1, raise_timeout_error=True, flow_run_id=run_id))

    assert clock.naps == [60.0, 1.0]


def test_keys_of_an_input_begin_alike() -> None:
    keys = keyset_from_base_key("paused-1")

    assert keys["response"] == "paused-1-response"
    assert keyset_from_paused_state(Paused(pause_key="1")) == keys
    with pytest.raises(errors.ConfigurationError):
        keyset_from_paused_state(Running())
    with pytest.raises(errors.MissingContextError):
        read_flow_run_input("paused-1-response")

"""Inputs of flow runs: typed, sent, received, and by their keys."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import pytest

from embedded_orch import errors, flow, pause_flow_run, resume_flow_run, runtime
from embedded_orch.input import (
    GetInputHandler,
    RunInput,
    RunInputMetadata,
    acreate_flow_run_input,
    acreate_flow_run_input_from_model,
    adelete_flow_run_input,
    afilter_flow_run_input,
    aread_flow_run_input,
    create_flow_run_input,
    create_flow_run_input_from_model,
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


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_inputs_are_awaited_by_key_in_asynchronous_code(memory: Orchestrator, backend: str) -> None:
    @flow
    async def parent() -> list[Any]:
        await acreate_flow_run_input("a-1", 1)
        await create_flow_run_input("a-2", 2)
        await acreate_flow_run_input_from_model("b-1", Greeting(name="Ada"))
        await create_flow_run_input_from_model("b-2", Greeting(name="Bob"))
        found = [row.key for row in await afilter_flow_run_input("a", 9)]
        both = [await aread_flow_run_input("a-1"), await read_flow_run_input("b-1")]
        await adelete_flow_run_input("a-1")
        await delete_flow_run_input("a-2")
        return [found, both, await filter_flow_run_input("a", 9)]

    assert anyio.run(parent, backend=backend) == [
        ["a-1", "a-2"],
        [1, {"name": "Ada", "times": 1}],
        [],
    ]


def test_input_from_a_model_is_sent_by_the_run_and_read_back_as_that(orch: Orchestrator) -> None:
    @flow
    def parent() -> tuple[Greeting, RunInputMetadata, RunInputMetadata]:
        create_flow_run_input_from_model("greeting-1", Greeting(name="Ada", times=2))
        [row] = filter_flow_run_input("greeting")
        read = Greeting.load_from_flow_run_input(row)
        assert (row.decoded_value, row.value) == (
            {"name": "Ada", "times": 2},
            '{"name":"Ada","times":2}',
        )
        expected = RunInputMetadata(key=row.key, sender=row.sender, receiver=row.flow_run_id)
        return read, read.metadata, expected

    read, metadata, expected = parent()

    assert read == Greeting(name="Ada", times=2)
    assert metadata == expected
    assert expected.receiver == the_flow_run(orch).id
    assert expected.sender == f"flow-run-{expected.receiver}"


def test_values_of_plain_types_are_received_with_metadata_and_answered(
    memory: Orchestrator,
) -> None:
    @flow
    def talk() -> tuple[list[int], str, bool]:
        run_id = runtime.flow_run.id
        assert run_id is not None
        send_input([1, 2], run_id)
        received: Any = receive_input(list, timeout=0, with_metadata=True).next()
        received.respond("thanks")
        Greeting(name="Ada").send_to(run_id)
        greeting = receive_input(Greeting, timeout=0, with_metadata=True).next()
        answer = receive_input(str, timeout=0).next()
        return received.value, answer, greeting.metadata.key.startswith("greeting-auto-")

    assert talk() == ([1, 2], "thanks", True)


def test_what_was_sent_by_no_run_cannot_be_answered(memory: Orchestrator) -> None:
    run_id = a_flow_run(memory.database, memory.engine.process)
    send_input(1, run_id, sender="me")
    received: Any = receive_input(int, timeout=0, flow_run_id=run_id, with_metadata=True).next()

    with pytest.raises(errors.ConfigurationError, match="sent by a flow run"):
        received.respond(2)
    assert received.metadata.sender == "me"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_class_of_inputs_is_saved_loaded_sent_and_answered_asynchronously(
    memory: Orchestrator, backend: str
) -> None:
    class Described(Greeting):
        _description: ClassVar[str | None] = "who is it?"

    @flow
    async def parent() -> list[Any]:
        run_id = runtime.flow_run.id
        assert run_id is not None
        keys = keyset_from_base_key("visitor")
        await Described.asave(keys)
        with pytest.raises(errors.RunInputError, match="name"):
            await Described.aload(keys)
        await acreate_flow_run_input(keys["response"], {"name": "Ada"})
        loaded = await Described.aload(keys)
        await loaded.asend_to(run_id)
        received = await Described.receive(timeout=0).anext()
        await received.arespond(5)
        handler = GetInputHandler(int, timeout=0)
        return [
            await read_flow_run_input(keys["description"]),
            (await read_flow_run_input(keys["schema"]))["required"],
            received == loaded,
            loaded.metadata.key,
            await handler.next(),
            len(handler.exclude_keys),
        ]

    assert anyio.run(parent, backend=backend) == [
        "who is it?",
        ["name"],
        True,
        "visitor-response",
        5,
        1,
    ]


def test_model_of_pydantic_is_sent_and_received(memory: Orchestrator) -> None:
    pydantic = pytest.importorskip("pydantic")
    Visitor = pydantic.create_model("Visitor", name=(str, ...), times=(int, 1))  # noqa: N806

    @flow
    def parent() -> Any:
        run_id = runtime.flow_run.id
        send_input(Visitor(name="Ada"), run_id)  # type: ignore[arg-type]
        return next(receive_input(Visitor, timeout=0))

    assert parent() == Visitor(name="Ada")


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

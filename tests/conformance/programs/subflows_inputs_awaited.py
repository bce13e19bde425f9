"""An asynchronous flow sends another one inputs, which answers each of them."""

import asyncio

from embedded_orch import flow, runtime
from embedded_orch.input import (
    RunInput,
    acreate_flow_run_input,
    aread_flow_run_input,
    receive_input,
    send_input,
)


class Number(RunInput):
    number: int


@flow
async def squares(count: int) -> int:
    answered = 0
    async for data in Number.receive(timeout=60):
        await data.arespond(Number(number=data.number**2))
        answered += 1
        if answered == count:
            break
    return answered


@flow
async def asks(server_id: str) -> list[int]:
    await acreate_flow_run_input("note", {"asked": [2, 3]})
    answers, seen = [], set()
    for number in (await aread_flow_run_input("note"))["asked"]:
        await Number(number=number).asend_to(server_id)
        answer = await Number.receive(timeout=60, exclude_keys=seen).anext()
        seen.add(answer.metadata.key)
        answers.append(answer.number)
    return answers


@flow
async def sends_itself() -> tuple[int, bool]:
    me = runtime.flow_run.id
    await send_input(7, me)
    received = await receive_input(int, timeout=60, with_metadata=True).anext()
    return received.value, str(me) in received.metadata.sender


async def main() -> None:
    started = asyncio.Event()
    ids: list[str] = []

    @flow
    async def server() -> int:
        ids.append(runtime.flow_run.id)
        started.set()
        return await squares.fn(2)

    serving = asyncio.create_task(server())
    await started.wait()
    assert await asks(ids[0]) == [4, 9]
    assert await serving == 2
    assert await sends_itself() == (7, True)


if __name__ == "__main__":
    asyncio.run(main())

"""The client reads runs by filters."""

import asyncio

from embedded_orch import flow, get_client
from embedded_orch.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from embedded_orch.client.schemas.sorting import FlowRunSort


@flow
def work(number):
    return 10 / number


work(1)
work(0, return_state=True)


async def main():
    async with get_client() as client:
        failed = FlowRunFilterState(type=FlowRunFilterStateType(any_=["FAILED"]))
        runs = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=failed), sort=FlowRunSort.START_TIME_DESC
        )
        assert [run.parameters for run in runs] == [{"number": 0}]
        assert await client.count_flow_runs() == 2


asyncio.run(main())

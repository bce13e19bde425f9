"""The client reads what runs have logged."""

import asyncio
import logging

from embedded_orch import flow, get_client, get_run_logger, task
from embedded_orch.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
)
from embedded_orch.client.schemas.sorting import LogSort


@task
def load():
    get_run_logger().warning("the disk is nearly full")


@flow
def etl():
    get_run_logger().info("beginning")
    load()


async def main():
    async with get_client() as client:
        [run] = await client.read_flow_runs()
        of_run = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[run.id]),
            level=LogFilterLevel(ge_=logging.WARNING),
        )
        found = await client.read_logs(log_filter=of_run)
        assert [log.message for log in found] == ["the disk is nearly full"]
        assert found[0].level == logging.WARNING
        assert found[0].flow_run_id == run.id
        everything = await client.read_logs(sort=LogSort.TIMESTAMP_ASC)
        assert "beginning" in [log.message for log in everything]


etl()
asyncio.run(main())

"""A client sets the state of a run that nobody runs, and a finished one stays finished."""

import anyio

from embedded_orch import flow, get_client
from embedded_orch.states import Cancelled


@flow
def nightly():
    return 1


async def main():
    async with get_client() as client:
        run = await client.create_flow_run(nightly)
        answer = await client.set_flow_run_state(run.id, Cancelled())
        assert answer.status == "ACCEPT"
        assert (await client.read_flow_run(run.id)).state.is_cancelled()


anyio.run(main)
assert nightly() == 1

"""A flow pauses until somebody resumes it, with input."""

import threading

from embedded_orch import flow, get_client, pause_flow_run, resume_flow_run
from embedded_orch.client.schemas.filters import FlowRunFilter

approved = []


@flow
def approval():
    answer = pause_flow_run(wait_for_input=str, timeout=60, poll_interval=1)
    approved.append(answer)
    return answer


def approve():
    with get_client(sync_client=True) as client:
        while not (
            paused := client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state={"type": {"any_": ["PAUSED"]}})
            )
        ):
            threading.Event().wait(0.01)
    resume_flow_run(paused[0].id, run_input={"value": "yes"})


thread = threading.Thread(target=approve)
thread.start()
assert approval() == "yes"
thread.join()

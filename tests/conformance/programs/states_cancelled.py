"""A run is cancelled from another thread, with what it has submitted."""

import threading
import time

from embedded_orch import flow, get_client, task
from embedded_orch.exceptions import CancelledRun
from embedded_orch.states import Cancelling

began = threading.Event()


@task
def slow():
    began.set()
    for _ in range(3000):
        time.sleep(0.01)


@flow
def job():
    slow.submit().result()


def cancel():
    began.wait(30)
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(limit=1)[0]
        client.set_flow_run_state(run.id, Cancelling())


thread = threading.Thread(target=cancel)
thread.start()
try:
    job()
except CancelledRun:
    cancelled = True
thread.join()
assert cancelled
with get_client(sync_client=True) as client:
    assert client.read_flow_runs(limit=1)[0].state.is_cancelled()

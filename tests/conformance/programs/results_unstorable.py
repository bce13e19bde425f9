"""A value that cannot be stored is handed on all the same, and its run has none on record."""

import threading

from embedded_orch import flow, get_client, task
from embedded_orch.exceptions import MissingResult


@task
def lock():
    return threading.Lock()


@flow
def run():
    return lock().locked()


assert run() is False
with get_client(sync_client=True) as client:
    found = client.read_task_runs()[0]
try:
    found.state.result()
except MissingResult:
    missing = True
assert missing and found.state.is_completed()

"""A task that returns a failed state failed."""

from embedded_orch import flow, task
from embedded_orch.states import Failed

calls = []


@task(retries=1)
def check():
    calls.append(1)
    return Failed(message="not good") if len(calls) < 2 else "good"


@flow
def run():
    return check()


assert run() == "good" and len(calls) == 2

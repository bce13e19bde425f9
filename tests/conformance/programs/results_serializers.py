"""A result is stored as its serializer says, and comes back."""

from embedded_orch import flow, get_client, task


class Point:
    def __init__(self, x):
        self.x = x


@task(result_serializer="json", persist_result=True)
def plain():
    return {"a": [1, 2]}


@task(result_serializer="compressed/json", persist_result=True)
def packed():
    return "x" * 1000


@flow
def run():
    return plain(), len(packed())


assert run() == ({"a": [1, 2]}, 1000)
with get_client(sync_client=True) as client:
    values = [run.state.result() for run in client.read_task_runs()]
assert {"a": [1, 2]} in values and "x" * 1000 in values

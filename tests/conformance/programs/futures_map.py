"""map submits a task once for each item."""

from embedded_orch import flow, task, unmapped


@task
def scale(number, factor):
    return number * factor


@flow
def run():
    futures = scale.map([1, 2, 3], unmapped(10))
    assert [future.result() for future in futures] == [10, 20, 30]
    return scale.map(range(2), factor=[1, 2]).result()


assert run() == [0, 2]

"""A task that is called runs here and now, inside of a flow or outside."""

from embedded_orch import flow, task


@task
def add(a, b=1):
    return a + b


@flow
def sums():
    return [add(1), add(1, 2), add(a=1, b=3)]


assert sums() == [2, 3, 4]
assert add(4) == 5

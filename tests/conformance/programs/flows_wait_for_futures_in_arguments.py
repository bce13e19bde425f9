"""A flow that is given the future of a task gets its result."""

from embedded_orch import flow, task


@task
def number():
    return 5


@flow
def child(value):
    return value + 1


@flow
def parent():
    return child(number.submit())


assert parent() == 6

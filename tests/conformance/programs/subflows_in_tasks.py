"""A task may call a flow."""

from embedded_orch import flow, task


@flow
def child(number):
    return number * 2


@task
def work(number):
    return child(number)


@flow
def parent():
    return work.map([1, 2, 3]).result()


assert parent() == [2, 4, 6]

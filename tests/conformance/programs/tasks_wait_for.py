"""wait_for makes a task wait for others whose results it does not take."""

from embedded_orch import flow, task

order = []


@task
def first():
    order.append("first")


@task
def second():
    order.append("second")


@flow
def run():
    future = first.submit()
    second.submit(wait_for=[future]).wait()


run()
assert order == ["first", "second"]

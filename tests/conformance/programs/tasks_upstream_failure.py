"""A task whose argument failed is not run: it is NotReady."""

from embedded_orch import flow, task

called = []


@task
def fail():
    raise ValueError("no")


@task
def after(value):
    called.append(value)


@flow
def run():
    state = after.submit(fail.submit(), return_state=True)
    assert state.is_pending() and state.name == "NotReady"


run(return_state=True)
assert called == []

"""A submitted task gives a future at once."""

from embedded_orch import flow, task


@task
def add(a, b):
    return a + b


@flow
def run():
    first = add.submit(1, 2)
    second = add.submit(first, 10)
    assert second.result() == 13
    assert second.state.is_completed()
    return [first, second]


state = run(return_state=True)
assert state.is_completed()

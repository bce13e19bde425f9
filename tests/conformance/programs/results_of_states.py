"""Results are read from states and futures, and raise what the run raised where asked to."""

from embedded_orch import flow, task


@task
def divide(a, b):
    return a / b


@flow
def work():
    good = divide(4, 2, return_state=True)
    bad = divide(4, 0, return_state=True)
    assert good.result() == 2
    assert isinstance(bad.result(raise_on_failure=False), ZeroDivisionError)
    try:
        bad.result()
    except ZeroDivisionError:
        raised.append(True)
    return divide.submit(9, 3).result()


raised = []
state = work(return_state=True)
assert state.is_completed()
assert state.result() == 3
assert raised == [True]

"""A flow that returns the states of its tasks is as good as the worst of them."""

from embedded_orch import flow, task


@task
def divide(number):
    return 10 / number


@flow
def all_of(numbers):
    return [divide(number, return_state=True) for number in numbers]


assert all_of([1, 2], return_state=True).is_completed()
state = all_of([1, 0], return_state=True)
assert state.is_failed() and "1/2" in state.message

"""A generator flow yields through."""

from embedded_orch import flow, task


@task
def double(number):
    return number * 2


@flow
def numbers():
    for number in range(3):
        yield double(number)


assert list(numbers()) == [0, 2, 4]

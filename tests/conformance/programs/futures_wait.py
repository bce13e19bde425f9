"""wait() gives what is done and what is not."""

from embedded_orch import flow, task
from embedded_orch.futures import wait


@task
def one(number):
    return number


@flow
def run():
    futures = one.map([1, 2, 3])
    done, not_done = wait(futures)
    assert not not_done
    return sum(future.result() for future in done)


assert run() == 6

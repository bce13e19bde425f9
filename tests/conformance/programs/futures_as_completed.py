"""as_completed() gives futures as they end."""

from embedded_orch import flow, task
from embedded_orch.futures import as_completed


@task
def one(number):
    return number


@flow
def run():
    return sorted(future.result() for future in as_completed(one.map([3, 1, 2])))


assert run() == [1, 2, 3]

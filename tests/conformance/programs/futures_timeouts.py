"""Waiting for a result has an end; waiting alone is silent."""

import threading

from embedded_orch import flow, task

may_end = threading.Event()


@task
def slow():
    may_end.wait(30)
    return 1


@flow
def run():
    future = slow.submit()
    future.wait(timeout=0.01)
    try:
        future.result(timeout=0.01)
    except TimeoutError:
        may_end.set()
    return future.result()


assert run() == 1

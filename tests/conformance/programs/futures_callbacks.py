"""A callback is called when a task has ended."""

import threading

from embedded_orch import flow, task

called = threading.Event()


@task
def one():
    return 1


@flow
def run():
    future = one.submit()
    future.add_done_callback(lambda ended: called.set())
    assert called.wait(30)
    return future.result()


assert run() == 1

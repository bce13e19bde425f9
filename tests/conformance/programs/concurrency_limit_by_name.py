"""A limit lets so many in at a time."""

import threading

from embedded_orch import flow, task
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.orchestrator import registry

registry.current().concurrency_limits.create("database", limit=1)
lock, inside, most = threading.Lock(), [0], [0]


@task
def work():
    with concurrency("database", occupy=1):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        with lock:
            inside[0] -= 1


@flow
def run():
    [future.wait() for future in [work.submit() for _ in range(5)]]


run()
assert most[0] == 1

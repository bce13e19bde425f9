"""A flow says where its tasks run."""

import threading

from embedded_orch import flow, task
from embedded_orch.task_runners import ThreadPoolTaskRunner

lock, running, most = threading.Lock(), [0], [0]


@task
def work():
    with lock:
        running[0] += 1
        most[0] = max(most[0], running[0])
    with lock:
        running[0] -= 1


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def run():
    for future in [work.submit() for _ in range(10)]:
        future.wait()


run()
assert most[0] <= 2

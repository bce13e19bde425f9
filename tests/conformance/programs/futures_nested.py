"""Tasks submit tasks and wait for them, also with few workers."""

from embedded_orch import flow, task
from embedded_orch.task_runners import ThreadPoolTaskRunner


@task
def leaf(number):
    return number


@task
def branch(number):
    return sum(future.result() for future in [leaf.submit(number), leaf.submit(number)])


@flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
def tree():
    return sum(branch.map([1, 2, 3]).result())


assert tree() == 12

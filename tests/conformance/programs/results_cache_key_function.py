"""A function makes the key; refreshing calls again."""

from embedded_orch import flow, task
from embedded_orch.tasks import task_input_hash

calls = []


@task(cache_key_fn=task_input_hash)
def load(path):
    calls.append(path)
    return len(calls)


@flow
def report():
    return load("a"), load("a"), load.with_options(refresh_cache=True)("a"), load("a")


assert report() == (1, 1, 2, 2)

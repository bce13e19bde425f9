"""Policies are added, and leave inputs out."""

from embedded_orch import flow, task
from embedded_orch.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE

calls = []


@task(cache_policy=INPUTS - "debug" + TASK_SOURCE)
def load(path, debug):
    calls.append(debug)


@task(cache_policy=NO_CACHE)
def never(path):
    calls.append("never")


@flow
def report():
    load("a", debug=True)
    load("a", debug=False)
    never("a")
    never("a")


report()
assert calls == [True, "never", "never"]

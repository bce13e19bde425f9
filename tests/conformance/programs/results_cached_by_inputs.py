"""A task with a cache policy of its inputs is not called again for the same ones, in any run."""

from datetime import timedelta

from embedded_orch import flow, task
from embedded_orch.cache_policies import INPUTS

calls = []


@task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
def load(path, debug=False):
    calls.append(path)
    return f"the rows of {path}"


@flow
def report(path):
    state = load(path, return_state=True)
    return state.name


assert [report("a"), report("b"), report("a")] == ["Completed", "Completed", "Cached"]
assert calls == ["a", "b"]

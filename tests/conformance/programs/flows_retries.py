"""A flow is called again when it raises, and what its tasks completed stands."""

from embedded_orch import flow, task

calls = []


@task
def load():
    calls.append("load")
    return 1


@flow(retries=2, retry_delay_seconds=0)
def report():
    calls.append("report")
    value = load()
    if calls.count("report") < 3:
        raise RuntimeError("not yet")
    return value


assert report() == 1
assert calls.count("report") == 3 and calls.count("load") == 1

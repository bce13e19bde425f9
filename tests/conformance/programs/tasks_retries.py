"""A task is called again when it raises, after its delays."""

from embedded_orch import flow, task

calls = []


@task(retries=2, retry_delay_seconds=[0, 0.01])
def flaky():
    calls.append(1)
    if len(calls) < 3:
        raise RuntimeError("not yet")
    return len(calls)


@flow
def run():
    return flaky()


assert run() == 3

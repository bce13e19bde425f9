"""A condition says whether a failure is retried."""

from embedded_orch import flow, task

calls = []


def only_timeouts(task, task_run, state):
    return isinstance(state.result(raise_on_failure=False), TimeoutError)


@task(retries=5, retry_condition_fn=only_timeouts)
def fetch(error):
    calls.append(error)
    raise error


@flow
def run():
    return fetch(ValueError("never"), return_state=True)


assert run(return_state=True).is_failed()
assert len(calls) == 1

"""Hooks of tasks, also in the form of decorators."""

from embedded_orch import flow, task

called = []


@task(retries=1)
def flaky():
    if called.count("running") < 2:
        raise ValueError("once")


@flaky.on_running
def running(task, task_run, state):
    called.append("running")


@flaky.on_completion
def completed(task, task_run, state):
    called.append("completed")


@flaky.on_failure
def failed(task, task_run, state):
    called.append("failed")


@flow
def run():
    flaky()


run()
assert called == ["running", "running", "completed"]

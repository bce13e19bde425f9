"""A failure is raised by result(), or given."""

from embedded_orch import flow, task


@task
def fail():
    raise KeyError("x")


@flow
def run():
    future = fail.submit()
    future.wait()
    assert future.state.is_failed()
    assert isinstance(future.result(raise_on_failure=False), KeyError)
    try:
        future.result()
    except KeyError:
        return "raised"


assert run() == "raised"

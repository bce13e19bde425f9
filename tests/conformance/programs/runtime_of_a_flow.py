"""The runtime tells which run this is."""

from embedded_orch import flow, runtime, task


@task
def inner():
    return runtime.task_run.task_name, runtime.task_run.run_count


@flow(name="named")
def outer(number=3):
    assert runtime.flow_run.flow_name == "named"
    assert runtime.flow_run.parameters == {"number": 3}
    assert runtime.flow_run.run_count == 1
    return inner()


assert outer() == ("inner", 1)
assert runtime.flow_run.id is None

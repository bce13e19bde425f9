"""The context gives the run and its function."""

from embedded_orch import flow, task
from embedded_orch.context import FlowRunContext, TaskRunContext, get_run_context
from embedded_orch.exceptions import MissingContextError


@task
def inner(number):
    context = TaskRunContext.get()
    assert context.parameters == {"number": number}
    return get_run_context().task_run.name


@flow
def outer():
    assert FlowRunContext.get().flow.name == "outer"
    assert TaskRunContext.get() is None
    return inner(1)


assert outer().startswith("inner")
try:
    get_run_context()
except MissingContextError:
    outside = True
assert outside

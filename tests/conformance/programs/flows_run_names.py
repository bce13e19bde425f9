"""A run is named by a template over its parameters, or by a function."""

from embedded_orch import flow, runtime


@flow(flow_run_name="load-{region}-{day}")
def load(region, day):
    return runtime.flow_run.name


def by_call():
    return "made-by-a-function"


@flow(flow_run_name=by_call)
def other():
    return runtime.flow_run.name


assert load("eu", 3) == "load-eu-3"
assert other() == "made-by-a-function"

"""A task run is named by a template, or by a function that may take the parameters."""

from embedded_orch import flow, runtime, task


@task(task_run_name="load-{path}")
def load(path):
    return runtime.task_run.name


def by_parameters(parameters):
    return f"size-{len(parameters['items'])}"


@task(task_run_name=by_parameters)
def size(items):
    return runtime.task_run.name


@flow
def run():
    return load("a.csv"), size([1, 2])


assert run() == ("load-a.csv", "size-2")

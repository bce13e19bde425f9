"""allow_failure hands the exception on."""

from embedded_orch import allow_failure, flow, task


@task
def fail():
    raise ValueError("no")


@task
def clean_up(found):
    return type(found).__name__


@flow
def run():
    return clean_up(allow_failure(fail.submit()))


assert run() == "ValueError"

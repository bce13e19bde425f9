"""quote hands a collection on without looking into it."""

from embedded_orch import flow, task
from embedded_orch.utilities.annotations import quote


@task
def count(rows):
    return len(rows)


@flow
def run():
    return count(quote([1, 2, 3]))


assert run() == 3

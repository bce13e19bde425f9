"""A block that fails undoes its tasks."""

from embedded_orch import flow, task
from embedded_orch.transactions import transaction

written = set()


@task
def write(name):
    written.add(name)


@write.on_rollback
def remove(txn):
    written.discard("a")


@task
def check():
    raise ValueError("bad")


@flow
def run():
    with transaction():
        write("a")
        check()


run(return_state=True)
assert written == set()

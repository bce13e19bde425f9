"""A block in a block is undone with the one around it."""

from embedded_orch import flow, task
from embedded_orch.transactions import transaction

undone = []


@task
def write(name):
    return name


@write.on_rollback
def undo(txn):
    undone.append("write")


@flow
def run():
    with transaction():
        write("a")
        with transaction():
            write("b")
        raise ValueError("after the inner one")


assert run(return_state=True).is_failed()
assert undone == ["write", "write"]

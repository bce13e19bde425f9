"""Hooks read what a block has set."""

from embedded_orch import flow, task
from embedded_orch.transactions import transaction

found = []


@task(on_rollback=[lambda txn: found.append(txn.get("where"))])
def one():
    return 1


@flow
def run():
    with transaction() as txn:
        txn.set("where", "here")
        one()
        raise ValueError("late")


run(return_state=True)
assert found == ["here"]

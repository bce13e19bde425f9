"""A block that ends well commits its tasks."""

from embedded_orch import flow, task
from embedded_orch.transactions import get_transaction, transaction

said = []


@task
def one():
    assert get_transaction() is not None


@one.on_commit
def tell(txn):
    said.append("committed")


@flow
def run():
    with transaction() as txn:
        one()
        assert said == []
    assert txn.is_committed()


run()
assert said == ["committed"]

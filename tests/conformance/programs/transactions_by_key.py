"""What a key has on record is not done again."""

from embedded_orch import flow
from embedded_orch.transactions import transaction

done = []


@flow
def load(name):
    with transaction(key=f"load-{name}") as txn:
        if txn.is_committed():
            return "known"
        done.append(name)
        txn.stage(name.upper())
    return "done"


assert [load("a"), load("a"), load("b")] == ["done", "known", "done"]
assert done == ["a", "b"]

"""Cache keys are recorded in a storage of their own, beside that of the results."""

import tempfile
from datetime import timedelta
from pathlib import Path

from embedded_orch import flow, task
from embedded_orch.cache_policies import INPUTS, TASK_SOURCE
from embedded_orch.transactions import IsolationLevel

keys = Path(tempfile.mkdtemp())
results = Path(tempfile.mkdtemp())
policy = (INPUTS + TASK_SOURCE).configure(
    key_storage=keys, isolation_level=IsolationLevel.SERIALIZABLE
)
calls = []


@task(cache_policy=policy, result_storage=results, cache_expiration=timedelta(days=1))
def square(number: int) -> int:
    calls.append(number)
    return number**2


@flow
def squares():
    return [square(number) for number in (2, 3, 2)]


assert squares() == [4, 9, 4]
assert squares() == [4, 9, 4]
assert calls == [2, 3]
assert len(list(keys.iterdir())) == 2
assert sorted(path.read_bytes() for path in results.iterdir()) == [b"4", b"9"]

"""The names that programs import most."""

from embedded_orch import (
    Flow,
    State,
    Task,
    Transaction,
    allow_failure,
    flow,
    get_client,
    get_run_logger,
    tags,
    task,
    unmapped,
)

assert isinstance(flow(name="x")(lambda: 1), Flow)
assert isinstance(task(name="y")(lambda: 1), Task)
for name in (State, Transaction, allow_failure, get_client, get_run_logger, tags, unmapped):
    assert name is not None

"""States are made by their names, with Prefect's defaults."""

from embedded_orch.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)

assert Completed().name == "Completed"
assert Completed(name="Skipped", message="nothing to do").message == "nothing to do"
assert Pending().is_pending() and Running().is_running()
assert Scheduled().state_details.scheduled_time is not None
assert Failed(message="no").is_failed() and Crashed().is_crashed() and Cancelled().is_cancelled()
assert Paused(timeout_seconds=60).state_details.pause_timeout is not None
assert all(state().is_final() for state in (Completed, Failed, Crashed, Cancelled))
assert not any(state().is_final() for state in (Pending, Running, Scheduled, Paused))

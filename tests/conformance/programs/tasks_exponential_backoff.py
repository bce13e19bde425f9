"""Delays may grow by themselves."""

from embedded_orch import task
from embedded_orch.tasks import exponential_backoff

delays = exponential_backoff(backoff_factor=10)
assert delays(3) == [10, 20, 40]


@task(retries=2, retry_delay_seconds=exponential_backoff(0.001), retry_jitter_factor=0.5)
def fetch():
    return 1


assert fetch() == 1

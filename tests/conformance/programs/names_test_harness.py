"""Tests run flows on a database of their own."""

from embedded_orch import flow
from embedded_orch.testing.utilities import prefect_test_harness


@flow
def work():
    return 1


with prefect_test_harness():
    assert work() == 1

"""What tests of flows need: a database in memory, a clock, a crash button, writes that fail.

See docs/testing.md. ``prefect_test_harness`` is in :mod:`embedded_orch.testing.utilities`.
"""

from __future__ import annotations

from embedded_orch.testing.clock import VirtualClock
from embedded_orch.testing.faults import Crash
from embedded_orch.testing.opening import OrchestratorUnderTest, open

__all__ = ["Crash", "OrchestratorUnderTest", "VirtualClock", "open"]

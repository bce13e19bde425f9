"""Futures of submitted and mapped tasks."""

from __future__ import annotations

from embedded_orch.engine.futures import Future, FutureList

__all__ = ["Future", "FutureList"]

"""Futures of submitted and mapped tasks."""

from embedded_orch.engine.futures import Future, FutureList

__all__ = ["Future", "FutureList"]

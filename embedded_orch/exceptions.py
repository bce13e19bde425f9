"""Exceptions, in the module where Prefect has them; see :mod:`embedded_orch.errors`."""

from __future__ import annotations

from embedded_orch.errors import MissingContextError

__all__ = ["MissingContextError"]

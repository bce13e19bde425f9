"""Marks on arguments that say how a call takes them."""

from __future__ import annotations

from embedded_orch.annotations import BaseAnnotation, allow_failure, opaque, quote, unmapped

__all__ = ["BaseAnnotation", "allow_failure", "opaque", "quote", "unmapped"]

"""Variables of the environment that each run asks for, as somebody may set them meanwhile."""

from __future__ import annotations

import functools
import os


def said(variable: str) -> str | None:
    """What a variable is set to; None when it is not set.

    ``os.environ`` encodes the name, and makes a KeyError of its own, each time: most of these
    variables are not set, and what it keeps them in tells that at a tenth of the cost.
    """
    kept = getattr(os.environ, "_data", None)
    if kept is not None and _as_kept(variable) not in kept:
        return None
    return os.environ.get(variable)


@functools.cache
def _as_kept(variable: str) -> object:
    """A name as the environment itself has it, encoded as the platform wants it."""
    return os.environ.encodekey(variable)

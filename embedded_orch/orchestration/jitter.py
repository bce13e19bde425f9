"""Delays that differ, so that what failed together does not come back together."""

from __future__ import annotations

import math

# From here on the lower bound is 0 as far as a float can tell.
_LARGE = 50.0


def clamped_poisson(average: float, *, factor: float, chance: float) -> float:
    """A time to the next event of a Poisson process, kept between bounds around the average.

    The upper bound is ``average * (1 + factor)``, and the lower one is chosen so that what is left
    of the exponential distribution has about the same average. Prefect 3 jitters its delays so.

    Args:
        average: seconds; 0 stays 0.
        factor: how far above the average it may be, as a part of it; more than 0.
        chance: where between the bounds it lies, from 0 (the lower) up to 1 (the upper).
    """
    if average <= 0:
        return 0.0
    upper = 1 + factor
    below = _probability_below(_lower(upper))
    above = _probability_below(upper)
    return -math.log(1 - (below + (above - below) * chance)) * average


def _probability_below(multiple: float) -> float:
    """That an exponentially distributed time is shorter than so many times its average."""
    return 1 - math.exp(-multiple)


def _lower(upper: float) -> float:
    """The multiple of the average to begin at, so that ending at ``upper`` does not change it."""
    return 0.0 if upper >= _LARGE else -math.log2(1 - 2**-upper)

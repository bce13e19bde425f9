"""Iterables of different lengths cannot be mapped over."""

from embedded_orch import flow, task
from embedded_orch.exceptions import MappingLengthMismatch, MappingMissingIterable


@task
def pair(a, b):
    return a, b


@flow
def run():
    for arguments, expected in (
        (([1, 2], [1, 2, 3]), MappingLengthMismatch),
        ((1, 2), MappingMissingIterable),
    ):
        try:
            pair.map(*arguments)
        except expected:
            continue
        raise AssertionError(expected)


run()

"""Exceptions are caught by the names that they have in Prefect."""

from embedded_orch import flow, get_run_logger, task
from embedded_orch.exceptions import (
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    ParameterBindError,
    ParameterTypeError,
    PrefectException,
)


@task
def add(a, b):
    return a + b


@flow
def lengths():
    return add.map([1, 2], [1, 2, 3])


@flow
def nothing_to_map():
    return add.map(1, 2)


@flow
def typed(number: int):
    return number


def raised(expected, call, *args):
    try:
        call(*args)
    except expected as error:
        return isinstance(error, PrefectException)
    return False


assert raised(MappingLengthMismatch, lengths)
assert raised(MappingMissingIterable, nothing_to_map)
assert raised(ParameterTypeError, typed, "many")
assert raised(ParameterBindError, typed, 1, 2)
assert raised(MissingContextError, get_run_logger)

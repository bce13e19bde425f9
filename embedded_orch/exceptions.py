"""Exceptions, in the module where Prefect has them; see :mod:`embedded_orch.errors`."""

from __future__ import annotations

from embedded_orch.errors import (
    CancelledRun,
    ConfigurationError,
    CrashedRun,
    FailedRun,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    MissingResult,
    OrchestratorError,
    ParameterBindError,
    ParameterTypeError,
    PausedRun,
    RunNotFound,
    SignatureError,
    UnfinishedRun,
    UpstreamFailed,
    ValueNotStorable,
)

PrefectException = OrchestratorError
ObjectNotFound = RunNotFound
ReservedArgumentError = SignatureError
SignatureMismatchError = ParameterBindError
InvalidNameError = ConfigurationError
UpstreamTaskError = UpstreamFailed
SerializationError = ValueNotStorable
HashError = ValueNotStorable

__all__ = [
    "CancelledRun",
    "ConfigurationError",
    "CrashedRun",
    "FailedRun",
    "HashError",
    "InvalidNameError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingResult",
    "ObjectNotFound",
    "ParameterBindError",
    "ParameterTypeError",
    "PausedRun",
    "PrefectException",
    "ReservedArgumentError",
    "SerializationError",
    "SignatureMismatchError",
    "UnfinishedRun",
    "UpstreamTaskError",
]

"""Exceptions, in the module where Prefect has them; see :mod:`embedded_orch.errors`."""

from __future__ import annotations

from embedded_orch.errors import (
    Abort,
    CancelledRun,
    ConfigurationError,
    CrashedRun,
    FailedRun,
    FlowPauseTimeout,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    MissingResult,
    NotPausedError,
    OrchestratorError,
    ParameterBindError,
    ParameterTypeError,
    Pause,
    PausedRun,
    RunNotFound,
    Signal,
    SignatureError,
    UnfinishedRun,
    UpstreamFailed,
    ValueNotStorable,
)

PrefectSignal = Signal
PrefectException = OrchestratorError
ObjectNotFound = RunNotFound
ReservedArgumentError = SignatureError
SignatureMismatchError = ParameterBindError
InvalidNameError = ConfigurationError
UpstreamTaskError = UpstreamFailed
SerializationError = ValueNotStorable
HashError = ValueNotStorable

__all__ = [
    "Abort",
    "CancelledRun",
    "ConfigurationError",
    "CrashedRun",
    "FailedRun",
    "FlowPauseTimeout",
    "HashError",
    "InvalidNameError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingResult",
    "NotPausedError",
    "ObjectNotFound",
    "ParameterBindError",
    "ParameterTypeError",
    "Pause",
    "PausedRun",
    "PrefectException",
    "PrefectSignal",
    "ReservedArgumentError",
    "SerializationError",
    "SignatureMismatchError",
    "UnfinishedRun",
    "UpstreamTaskError",
]

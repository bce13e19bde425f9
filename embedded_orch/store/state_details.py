"""What a state says beyond its name, as it is stored: JSON whose times are microseconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from embedded_orch import times
from embedded_orch.states import NO_DETAILS, StateDetails

_TIMES = frozenset({"scheduled_time", "cache_expiration", "pause_timeout"})


def encode_details(details: StateDetails) -> str | None:
    """The details of a state as JSON text; None when there are none.

    Whose state it is stands beside it, and is not written again.

    Raises:
        ConfigurationError: a time has no time zone.
    """
    if details is NO_DETAILS:
        return None
    own = msgspec.structs.replace(details, flow_run_id=None, task_run_id=None)
    if own == NO_DETAILS:
        return None
    fields = msgspec.to_builtins(own, builtin_types=(datetime,))
    for name in _TIMES.intersection(fields):
        fields[name] = times.microseconds_from_datetime(fields[name])
    return msgspec.json.encode(fields).decode()


def decode_details(fields: dict[str, Any] | None) -> StateDetails:
    """The details of a state from their parsed JSON."""
    if not fields:
        return NO_DETAILS
    moments = {
        name: times.datetime_from_microseconds(fields[name]) for name in _TIMES.intersection(fields)
    }
    return msgspec.convert({**fields, **moments}, StateDetails)

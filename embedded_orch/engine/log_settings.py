"""What the environment says about logging. Read when the first run of a process begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedded_orch.engine.environment import said
from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import NoReturn

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
_LINES_PER_SECOND = 10_000
_EXTRA_LOGGERS = "EMBEDDED_ORCH_LOGGING_EXTRA_LOGGERS"
_LOG_PRINTS = "EMBEDDED_ORCH_LOGGING_LOG_PRINTS"


def level() -> int:
    """From which level on what runs log is kept and shown; INFO when nothing is said.

    ``EMBEDDED_ORCH_LOG_LEVEL``, else ``EMBEDDED_ORCH_LOGGING_LEVEL``: a name or a number.

    Raises:
        ConfigurationError: it is no level.
    """
    from logging import INFO, getLevelNamesMapping

    for variable in ("EMBEDDED_ORCH_LOG_LEVEL", "EMBEDDED_ORCH_LOGGING_LEVEL"):
        text = os.environ.get(variable, "").strip()
        if text:
            names = getLevelNamesMapping()
            if text.isdecimal():
                return int(text)
            if text.upper() in names:
                return names[text.upper()]
            _refuse(variable, text, f"it is a number, or one of {', '.join(names)}")
    return INFO


def extra_loggers() -> tuple[str, ...]:
    """Further loggers whose records inside of runs are kept; names with commas between them.

    ``EMBEDDED_ORCH_LOGGING_EXTRA_LOGGERS``.
    """
    text = said(_EXTRA_LOGGERS)
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def log_prints() -> bool:
    """Whether prints are kept where neither the decorator nor the calling flow says.

    ``EMBEDDED_ORCH_LOGGING_LOG_PRINTS``.

    Raises:
        ConfigurationError: it is neither true nor false.
    """
    found = said(_LOG_PRINTS)
    if found is None:
        return False
    text = found.strip().lower()
    if text not in _TRUE and text not in _FALSE:
        _refuse(_LOG_PRINTS, text, "it is true or false")
    return text in _TRUE


def lines_per_second() -> int:
    """How many lines are stored for one orchestrator, on the average; 0 for as many as come.

    ``EMBEDDED_ORCH_LOGGING_MAX_LINES_PER_SECOND``.

    Raises:
        ConfigurationError: it is no number.
    """
    variable = "EMBEDDED_ORCH_LOGGING_MAX_LINES_PER_SECOND"
    text = os.environ.get(variable, "").strip()
    if not text:
        return _LINES_PER_SECOND
    if not text.isdecimal():
        _refuse(variable, text, "it is a number of lines, 0 for as many as come")
    return int(text)


def _refuse(variable: str, text: str, what: str) -> NoReturn:
    raise ConfigurationError(f"the environment variable {variable}={text!r}: {what}")

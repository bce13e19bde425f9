"""The loggers of runs, and the handler that keeps what they log.

``embedded_orch.flow_runs`` and ``embedded_orch.task_runs`` are ordinary loggers. When the first run
of a process begins they get a handler, as do the loggers that the environment names: it puts each
record that belongs to a run into the :class:`~embedded_orch.engine.log_queue.LogQueue` of the run's
orchestrator, and shows it on standard error, unless the program has set up handlers of its own,
which get the record as they get every other. Nothing is set up before: importing changes nothing.

A record belongs to the run whose logger made it, wherever that is; else to the run that the running
code is in (:func:`embedded_orch.engine.printing.run_here`).
"""

from __future__ import annotations

import enum
import logging
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from embedded_orch.engine import log_settings
from embedded_orch.engine.contexts import FlowRunContext
from embedded_orch.engine.printing import run_here
from embedded_orch.values.secret import in_use
from embedded_orch.values.text import storable_text

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from uuid import UUID

    from embedded_orch.engine.contexts import RunContext
    from embedded_orch.engine.engine import Engine

FLOW_RUNS, TASK_RUNS = "embedded_orch.flow_runs", "embedded_orch.task_runs"
# What the engine has to say about a run, such as that a hook raised.
_ENGINE = "embedded_orch.engine"
LONGEST_MESSAGE = 100_000
"""Characters of one line that are kept."""

# Of a record: the run that it is about.
_RUN = "_embedded_orch_run"
_KEPT = "_embedded_orch_kept"
KEPT = {_KEPT: True}
"""Attributes of a record that is kept already, and is for the handlers of the program."""
_UNKNOWN = "<unknown>"
_root = logging.getLogger()
# One format for all: the message, a traceback, a stack.
_whole = logging.Formatter("%(message)s").format


class RunElsewhere(NamedTuple):
    """Whom a record is about, which need not go on here, and who keeps it.

    Handlers of the program may keep records for long, and send them to other processes: it holds
    nothing of what the run was called with, and is pickled as a text.
    """

    engine: Engine
    flow_run_id: UUID | None
    task_run_id: UUID | None
    label: str

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.label,)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records say which run they belong to, wherever they are made.

    The attributes of a record are those of Prefect: ``flow_run_id``, ``flow_run_name``,
    ``flow_name``, and in a task ``task_run_id``, ``task_run_name``, ``task_name``.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; the other methods come here.

        As the adapter of the standard library does, by fewer calls: they are most of what a line
        costs.
        """
        logger = self.logger
        if logger.isEnabledFor(level):
            msg, given = self.process(msg, kwargs)
            # The caller is the one above this function, which is none of logging's own.
            given["stacklevel"] = given.get("stacklevel", 1) + 1
            logger._log(level, msg, args, **given)  # noqa: SLF001 - as logging's own adapter does

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the attributes to those that a call gives."""
        given: Mapping[str, object] | None = kwargs.get("extra")
        kwargs["extra"] = {**(self.extra or {}), **given} if given else self.extra
        return msg, kwargs

    def getChild(self, suffix: str, extra: Mapping[str, object] | None = None) -> RunLogger:  # noqa: N802 - logging's own name
        """The logger of a part of the run's code."""
        return RunLogger(self.logger.getChild(suffix), {**(self.extra or {}), **(extra or {})})


def logger_of(run: RunContext, extra: Mapping[str, object] | None = None) -> RunLogger:
    """The logger of a run.

    Args:
        run: the run.
        extra: more attributes for its records.
    """
    listen()
    name = FLOW_RUNS if isinstance(run, FlowRunContext) else TASK_RUNS
    about = RunElsewhere(run.engine, run.flow_run_id, run.task_run_id, run.label)
    return RunLogger(_named(name), {**_attributes(run), **(extra or {}), _RUN: about})


def logger_of_run_elsewhere(name: str, run: RunElsewhere, extra: Mapping[str, object]) -> RunLogger:
    """The logger of a run that need not go on here.

    Args:
        name: of the logger.
        run: the run.
        extra: attributes for its records.
    """
    listen()
    return RunLogger(logging.getLogger(name), {**extra, _RUN: run})


def _attributes(run: RunContext) -> dict[str, object]:
    flow_run = run if isinstance(run, FlowRunContext) else run.flow_run
    of_flow: dict[str, object] = {
        "flow_run_id": _UNKNOWN if flow_run is None else str(flow_run.run_id),
        "flow_run_name": _UNKNOWN if flow_run is None else flow_run.name,
        "flow_name": _UNKNOWN if flow_run is None else flow_run.flow.name,
    }
    if isinstance(run, FlowRunContext):
        return of_flow
    return {
        "task_run_id": str(run.run_id),
        "task_run_name": run.name,
        "task_name": run.task.name,
        **of_flow,
    }


def listen(handler: type[RunHandler] | None = None) -> None:
    """See to it that the loggers of runs, and those that the environment names, have a handler.

    Args:
        handler: the kind that one gets that has none.

    Raises:
        ConfigurationError: the environment names a level that is none.
    """
    for logger in _listened_to(log_settings.extra_loggers()):
        # Each time: a program that configures logging meanwhile takes the handlers away.
        for each in logger.handlers:
            if isinstance(each, RunHandler):
                break
        else:
            if logger.level == logging.NOTSET:
                logger.setLevel(log_settings.level())
            logger.addHandler((handler or RunHandler)())


# Remembered for the same reason as below; that of logging takes a lock.
_named = lru_cache(maxsize=2)(logging.getLogger)


@lru_cache(maxsize=8)
def _listened_to(extra: tuple[str, ...]) -> tuple[logging.Logger, ...]:
    """The loggers that are to have a handler: ours, and further ones by their names.

    Remembered, since each flow run asks several times: a logger lives as long as its process.
    """
    return tuple(map(logging.getLogger, (FLOW_RUNS, TASK_RUNS, _ENGINE, *extra)))


class RunHandler(logging.Handler):
    """Keeps the records of runs, and shows them where nothing else does."""

    def createLock(self) -> None:  # noqa: N802 - logging's own name
        """None: a signal handler that logs would wait for a thread that it has interrupted."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit a record. That of Python 3.13 would enter the lock that there is not."""
        if not self.filters:
            self.emit(record)
            return True
        found: Any = self.filter(record)
        if found:
            # A filter may put another record in the place of this one (Python 3.12).
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep and show a record. Never raises into the code that logs."""
        try:
            attributes = record.__dict__
            if _KEPT in attributes:
                # On its way from a logger to one above it.
                return
            run: RunContext | RunElsewhere | None = attributes.get(_RUN)
            if not isinstance(run, RunElsewhere):
                run = run_here()
            if run is None:
                _show_what_belongs_to_no_run(record)
                return
            attributes[_KEPT] = True
            message = message_of(record)
            run.engine.logs.put(
                record.levelno, record.name, message, run.flow_run_id, run.task_run_id
            )
            if not _is_shown_by_others(record.name):
                show(int(record.created * 1e6), record.levelno, run.label, message)
        except Exception:  # noqa: BLE001 - what is logged is a user's, and the user's code goes on
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say what is wrong on standard error, if that is possible at all."""
        try:
            super().handleError(record)
        except Exception:  # noqa: BLE001 - standard error is in the middle of a write, or broken
            return


class HandlerElsewhere(RunHandler):
    """For a process of a pool: what runs log goes on to the root, which hands it over."""

    def emit(self, record: logging.LogRecord) -> None:
        """Nothing: the process that is served keeps and shows it."""
        return


def message_of(record: logging.LogRecord) -> str:
    """What is kept of a record: its message, with its traceback."""
    if record.exc_info or record.exc_text or record.stack_info:
        text = _whole(record)
    else:
        text = record.getMessage()
    return kept(text)


def kept(text: str) -> str:
    """What is kept of a text: secrets are masked, and it ends somewhere."""
    text = storable_text(in_use.masked(text))
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[:LONGEST_MESSAGE]}... (cut off here, of {len(text):,} characters)"


# -- the terminal --------------------------------------------------------------------------------


def _is_shown_by_others(name: str) -> bool:
    """Whether the program has set up handlers that get the records of a logger."""
    # Without the lock of getLogger(): the logger is there, since it made a record.
    found = _root.manager.loggerDict.get(name)
    logger: logging.Logger | None = found if isinstance(found, logging.Logger) else _root
    while logger is not None:
        for handler in logger.handlers:
            # One that does nothing says on the root that nothing is to be shown; on another logger
            # it is the custom of libraries, and says nothing.
            is_idle = type(handler) is logging.NullHandler and logger is not _root
            if not isinstance(handler, RunHandler) and not is_idle:
                return True
        logger = logger.parent if logger.propagate else None
    return False


class Audience(enum.Enum):
    """Who gets what is said through one of our loggers."""

    TERMINAL = "our handler alone, which keeps it and shows it"
    NOBODY = "our handler alone, and the program wants nothing shown"
    OTHERS = "handlers of the program, beside ours"
    UNKNOWN = "a filter, or a handler that is not as we have made it, says of each record"


def audience_of(logger: logging.Logger) -> Audience:
    """Who gets what is said through one of our loggers, as far as its handlers tell."""
    if logger.filters or not _is_kept_as_ever(logger):
        return Audience.UNKNOWN
    found: Audience = Audience.TERMINAL
    above: logging.Logger | None = logger
    while above is not None:
        for handler in above.handlers:
            kind = type(handler)
            if kind is logging.NullHandler:
                if above is _root and found is Audience.TERMINAL:
                    found = Audience.NOBODY
            elif not isinstance(handler, RunHandler):
                found = Audience.OTHERS
        above = above.parent if above.propagate else None
    return found


def _is_kept_as_ever(logger: logging.Logger) -> bool:
    for handler in logger.handlers:
        if isinstance(handler, RunHandler):
            return type(handler) is RunHandler and not handler.filters and not handler.level
    return False


def show(at: int, level: int, label: str, message: str) -> None:
    """Show a line on standard error.

    Args:
        at: microseconds since 1970 UTC.
        level: of the line.
        label: of the run.
        message: of the line.
    """
    if sys.stderr is None:
        # A program without a terminal.
        return
    seconds, microseconds = divmod(at, 1_000_000)
    time_of_day = f"{_time_of_day(seconds)}.{microseconds // 1000:03}"
    sys.stderr.write(f"{time_of_day} {logging.getLevelName(level):<8} {label}: {message}\n")


@lru_cache(maxsize=1)
def _time_of_day(seconds: int) -> str:
    """A time here, for people. Remembered, since lines mostly come many a second."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _show_what_belongs_to_no_run(record: logging.LogRecord) -> None:
    """As if our handler were not there."""
    last = logging.lastResort
    if last is not None and record.levelno >= last.level and not _is_shown_by_others(record.name):
        last.handle(record)

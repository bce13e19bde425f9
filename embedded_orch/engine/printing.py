"""Prints of runs that ask for it (``log_prints``), kept like what they log.

``print`` is one for the whole process, so it is replaced for as long as such a run goes on. What
is printed is still printed, as it is; and if the printing code belongs to a run that asks for it,
kept.

To which run a thread belongs that the user's code starts is not told by its context, which begins
empty. So for as long as it matters, starting a thread notes the run of the code that starts it.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from weakref import ref

from embedded_orch.engine import log_settings
from embedded_orch.engine.contexts import current_flow_run, current_task_run, is_going_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from embedded_orch.engine.contexts import RunContext

NOTHING = nullcontext()
"""Keeps nothing."""
_STARTED_BY = "_embedded_orch_started_by"


def run_here() -> RunContext | None:
    """The run that the running code belongs to: by its context, or by who started its thread."""
    found: RunContext | None = current_task_run() or current_flow_run()
    if found is None:
        started_by = threading.current_thread().__dict__.get(_STARTED_BY)
        found = None if started_by is None else started_by()
        if found is not None and not is_going_on(found):
            return None
    return found


def keeping_prints(is_asked_for: bool) -> AbstractContextManager[None]:
    """For the length of a call of the user's function, what makes its prints known."""
    if is_asked_for:
        return _Prints()
    return _adopting if log_settings.extra_loggers() else NOTHING


class Replacement:
    """One attribute of a module or class that is ours while somebody needs it.

    Another that replaced it after us, and is still in place when nobody needs ours any more, goes
    on calling it; it then does what the original does, and is not put in place a second time.

    Args:
        owner: the module or class.
        name: of the attribute.
        make: makes ours of the original.
    """

    def __init__(
        self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        self._owner = owner
        self._name = name
        self._make = make
        self._users = 0
        self._lock = threading.RLock()
        self._original: Any = None
        self._ours: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._ours is None or getattr(self._owner, self._name) is self._original:
                self._original = getattr(self._owner, self._name)
                self._ours = self._make(self._original)
                setattr(self._owner, self._name, self._ours)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and getattr(self._owner, self._name) is self._ours:
                setattr(self._owner, self._name, self._original)
                self._ours = None


class _Prints:
    """Both replacements, for one call."""

    __slots__ = ()

    def __enter__(self) -> None:
        _adopting.__enter__()
        _printing.__enter__()

    def __exit__(self, *_: object) -> None:
        _printing.__exit__()
        _adopting.__exit__()


def _print_kept(original: Callable[..., Any]) -> Callable[..., Any]:
    def print_kept(
        *values: object,
        sep: str | None = " ",
        end: str | None = "\n",
        file: Any = None,
        flush: bool = False,
    ) -> None:
        run = run_here()
        is_output = file is None or file is sys.stdout or file is sys.stderr
        if run is None or not is_output or not run.log_prints:
            original(*values, sep=sep, end=end, file=file, flush=flush)
            return
        # Once: making a text of a value may do more than that.
        text = (" " if sep is None else sep).join(map(str, values))
        original(text, end=end, file=file, flush=flush)
        keep_printed(run, text)

    return print_kept


def keep_printed(run: RunContext, text: str) -> None:
    """Keep what was printed as a line at INFO.

    Past the handlers: it has been shown.
    """
    from embedded_orch.engine.run_logging import kept, logger_of

    logger = logger_of(run).logger
    if logger.isEnabledFor(logging.INFO):
        run.engine.logs.put(logging.INFO, logger.name, kept(text), run.flow_run_id, run.task_run_id)


def _start_adopted(original: Callable[..., Any]) -> Callable[..., Any]:
    def start(thread: threading.Thread) -> None:
        run = run_here()
        if run is not None:
            # Not the run itself: a thread may live longer, and would keep what it was called with.
            thread.__dict__[_STARTED_BY] = ref(run)
        original(thread)

    return start


# One of each, since a process has one print and one way to start threads.
_printing = Replacement(builtins, "print", _print_kept)
_adopting = Replacement(threading.Thread, "start", _start_adopted)

"""Faults that a test presses a button for: a process that dies, a write that fails."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from embedded_orch.db.port import Database
    from embedded_orch.engine.engine import Moment


class Crash(BaseException):
    """Ends what a process does that a test has killed. No ``except Exception`` stops it."""


class CrashButton:
    """Is pressed by the call of one flow or task.

    Args:
        step: its name.
        moment: whether before or after its function.
        call: at the how-manieth call.
        press: kills the process.

    Attributes:
        calls: how many there were.
    """

    def __init__(self, step: str, moment: Moment, call: int, *, press: Callable[[], None]) -> None:
        self.calls = 0
        self.is_pressed = False
        self._step = step
        self._moment = moment
        self._call = call
        self._press = press
        self._lock = threading.Lock()

    def on_call(self, name: str, moment: Moment) -> None:
        """A function is called, or has returned.

        Raises:
            Crash: the process has died of it.
        """
        if self.is_pressed:
            raise Crash(f"the process died at {self._step!r}")
        if name != self._step or moment != self._moment:
            return
        with self._lock:
            self.calls += 1
            if self.calls != self._call:
                return
            self.is_pressed = True
        self._press()
        raise Crash(f"the process died {self._moment} {self._step!r}")


_NAME = "interception"
_METHODS = ("read", "write", "announce", "begin", "query", "backup")
_ASYNC_METHODS = ("read_async", "write_async")


class Interception:
    """Stands before the methods of one database that is open, for all who share it there.

    Args:
        database: the object; its class stays as it is.

    Attributes:
        is_dead: whether every call raises :class:`Crash`.
        writes: how many writes were begun that somebody waits for.
    """

    def __init__(self, database: Database) -> None:
        self.is_dead = False
        self.writes = 0
        self._users = 0
        self._database = database
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._after = 0
        self._is_committed = False
        self._in_progress: set[object] = set()
        for name in _METHODS:
            setattr(database, name, self._checked(getattr(database, name), name == "write"))
        for name in _ASYNC_METHODS:
            awaited = self._checked_async(getattr(database, name), name == "write_async")
            setattr(database, name, awaited)

    @classmethod
    def before(cls, database: Database) -> Interception:
        """The one before a database, to be given up by :meth:`remove`."""
        found: Interception | None = vars(database).get(_NAME)
        if found is None:
            found = cls(database)
            setattr(database, _NAME, found)
        found._users += 1
        return found

    @property
    def is_in_progress(self) -> bool:
        """Whether somebody waits for a call."""
        return bool(self._in_progress)

    def arm(self, n: int, error: Exception, *, is_committed: bool) -> None:
        """Have the n-th write from now on raise."""
        with self._lock:
            self._after = self.writes + n
            self._error, self._is_committed = error, is_committed

    def disarm(self) -> bool:
        """Have none raise; whether one has."""
        with self._lock:
            was_met = self._error is None
            self._error = None
            return was_met

    def remove(self) -> None:
        """Give the database its methods back, once nobody uses it any more."""
        self._users -= 1
        for name in () if self._users else (_NAME, *_METHODS, *_ASYNC_METHODS):
            vars(self._database).pop(name, None)

    def _checked(self, call: Callable[..., Any], is_write: bool) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            error = self._error_of(is_write)
            if error is not None and not self._is_committed:
                raise error
            with self._progress():
                answer = call(*args, **kwargs)
            if error is not None:
                raise error
            return answer

        return checked

    def _checked_async(self, call: Callable[..., Any], is_write: bool) -> Callable[..., Any]:
        async def checked(*args: Any, **kwargs: Any) -> Any:
            error = self._error_of(is_write)
            if error is not None and not self._is_committed:
                raise error
            with self._progress():
                answer = await call(*args, **kwargs)
            if error is not None:
                raise error
            return answer

        return checked

    @contextmanager
    def _progress(self) -> Generator[None]:
        one = object()
        self._in_progress.add(one)
        try:
            yield
        finally:
            self._in_progress.discard(one)

    def _error_of(self, is_write: bool) -> Exception | None:
        """What this call is to raise, if anything."""
        if self.is_dead:
            raise Crash(f"the process that used {self._database.url} has died")
        if not is_write:
            return None
        with self._lock:
            self.writes += 1
            if self._error is None or self.writes != self._after:
                return None
            error, self._error = self._error, None
            return error

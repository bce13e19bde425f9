"""An orchestrator for tests: on a database of its own, with a clock and with faults."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.db.waiting_room import WaitingRoom
from embedded_orch.engine.effects import drive
from embedded_orch.engine.engine import Engine
from embedded_orch.engine.pause_deadlines import expire_pauses
from embedded_orch.orchestrator import Orchestrator, registry
from embedded_orch.testing.clock import VirtualClock
from embedded_orch.testing.faults import Crash, CrashButton, Interception

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from embedded_orch.db.opening import OpenDatabases, Shared
    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.engine import Moment


class OrchestratorUnderTest(Orchestrator):
    """An orchestrator whose time a test moves, and whose process and database it can have fail.

    Attributes:
        clock: its time.
    """

    def __init__(self, shared: Shared, databases: OpenDatabases, clock: VirtualClock) -> None:
        super().__init__(shared, databases, clock.process(), retention=False)
        self.clock = clock
        self._interception = Interception.before(shared.database)
        clock.watch(self._interception)

    @property
    def writes(self) -> int:
        """How many writes of runs were awaited so far, on this database and in this process."""
        return self._interception.writes

    @contextmanager
    def crash_at(self, step: str, *, moment: Moment = "before", call: int = 1) -> Generator[None]:
        """Have the process die, as by SIGKILL, when a flow or a task is called in the block.

        What is committed by then stays, and nothing else is written: no state, no result, no hook.
        The block ends there, and behind it the orchestrator is that of a new process, which finds
        the runs of the old one as any other would: Crashed, or to be resumed.

        Args:
            step: the name of the flow or task.
            moment: "before" its function is called, or "after" it has returned and before that is
                recorded.
            call: at the how-manieth call of it in the block.

        Raises:
            AssertionError: nothing of that name was called so often.
        """
        self.check_open()
        button = CrashButton(step, moment, call, press=self._die)
        self.engine.on_call = button.on_call
        try:
            yield
        except BaseException as error:
            if not button.is_pressed or not _is_by(error, Crash):
                raise
        finally:
            self.engine.on_call = None
            if button.is_pressed:
                self._begin_another_life()
        if not button.is_pressed:
            raise AssertionError(
                f"crash_at({step!r}): {step!r} was called {button.calls} time(s) in the block, and "
                f"not {call}"
            )

    @contextmanager
    def fail_write(
        self, n: int, error: Exception | None = None, *, is_committed: bool = False
    ) -> Generator[None]:
        """Have the n-th write in the block raise, once.

        Args:
            n: which one, from 1; those are counted that somebody waits for (see :attr:`writes`).
            error: what it raises; a :class:`~embedded_orch.errors.DatabaseUnavailable` when not
                given.
            is_committed: raise after the commit, as when a connection is lost in it.

        Raises:
            AssertionError: there were fewer writes.
        """
        self.check_open()
        unavailable = errors.DatabaseUnavailable(f"{self.url}: a fault of the test")
        before = self.writes
        self._interception.arm(n, error or unavailable, is_committed=is_committed)
        try:
            yield
        finally:
            was_met = self._interception.disarm()
        if not was_met:
            raise AssertionError(
                f"fail_write({n}): there were {self.writes - before} write(s) in the block"
            )

    def close(self, *, wait: bool = False, cancel: bool = False) -> None:
        """As :meth:`Orchestrator.close`."""
        was_closed = self.is_closed
        super().close(wait=wait, cancel=cancel)
        if not was_closed:
            self.clock.forget(self._interception)
            self._interception.remove()

    def _die(self) -> None:
        """Nothing that is not committed now ever is."""
        # A start that was announced may be on disk when a process dies; here it always is.
        self._shared.database.read(_nothing)
        self.engine.abandon()
        self._interception.is_dead = True

    def _begin_another_life(self) -> None:
        self._interception.is_dead = False
        dead = self.engine
        self._shared.room = WaitingRoom()
        self.engine = Engine(
            self._shared.database,
            dead.process,
            self._shared.life_path,
            room=self._shared.room,
            retention=False,
            lease_seconds=self._shared.lease_seconds,
        )
        self.engine.owner.know_dead(dead.owner)
        self.engine.recovery.sweep()
        drive(expire_pauses(self.engine))


def open(
    url: str | os.PathLike[str] = ":memory:", *, clock: VirtualClock | None = None, **settings: Any
) -> OrchestratorUnderTest:
    """Open a database for a test, to be used with ``with``.

    Args:
        url: of the database; one in memory when not given, gone with the block. See
            :func:`embedded_orch.open`.
        clock: its time; a :class:`VirtualClock` that jumps when not given.
        settings: as for :func:`embedded_orch.open`.

    Raises:
        ConfigurationError: as there.
        DatabaseError: as there.
    """
    registry.check_allowed()
    databases = registry.databases
    shared = databases.open(url, settings)
    try:
        orchestrator = OrchestratorUnderTest(shared, databases, clock or VirtualClock())
        if shared.life_path is not None:
            orchestrator.engine.recovery.sweep()
            drive(expire_pauses(orchestrator.engine))
    except BaseException:
        databases.close(shared)
        raise
    registry.add(orchestrator)
    return orchestrator


def _nothing(transaction: Transaction) -> None:
    """A read that has what was announced before it committed."""


def _is_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception is of a kind, or a group of one."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_by(each, kind) for each in error.exceptions)
    return isinstance(error, kind)

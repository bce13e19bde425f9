"""One process of a virtual machine: its own connections, locks, clock, ids and orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import TYPE_CHECKING, Any

import apsw

from embedded_orch import errors
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.statements import Catalog
from embedded_orch.orchestrator import Orchestrator, _entered
from embedded_orch.process import Process
from tests.simulation.threads import Killed, Thread, Wait

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import NoReturn

    from tests.simulation.machine import Machine

# Read once for all processes of all machines: it is the same SQL.
_CATALOG = Catalog("sqlite")
_SETTINGS = {"durability": "off", "busy_timeout_seconds": 5.0, "checkpoint_pages": 60}


class VirtualProcess:
    """A process, from its start to its end or its death.

    Attributes:
        threads: what runs in it.
        stopped_until: on the machine's time, while it is stopped as by SIGSTOP.
        stopped_since: the same.
        fuse: statements that it will still run before it is killed in the middle of them.
        dies_after_commit: whether it is killed by its next commit, once that is done.
        is_dying: whether it was killed in a call that is under way, which the engine takes for an
            interruption, and would write down.
        is_busy: whether its next write finds the database locked for too long.
        is_locked_out: whether the next group of writes that is committed does.
    """

    def __init__(self, machine: Machine, name: str, *, offset: int) -> None:
        self.machine = machine
        self.name = name
        self.offset = offset
        self.threads: list[Thread] = []
        self.stopped_since: int | None = None
        self.stopped_until = 0
        self.is_dead = False
        self.fuse: int | None = None
        self.dies_after_commit = False
        self.is_dying = False
        self.is_busy = False
        self.is_locked_out = False
        chance = Random(machine.chance.random())
        self.process = Process(clock=self.now, entropy=chance.randbytes, sleep=machine.pass_seconds)
        self._databases = OpenDatabases(self.process)
        shared = self._databases.open(machine.path, _SETTINGS)
        self._shared = shared
        self.database: Any = shared.database
        self._fit_with_faults()
        self.orchestrator = Orchestrator(
            shared, self._databases, self.process, retention=machine.retention
        )
        self.engine = self.orchestrator.engine
        self.context: Context = copy_context()
        self.context.run(_entered.set, self.orchestrator)

    def now(self) -> int:
        """What its host's clock shows, in microseconds."""
        return self.machine.time + self.offset

    # -- what it does ----------------------------------------------------------------------------

    def spawn(
        self, name: str, coroutine: Coroutine[Wait, Any, Any], context: Context | None = None
    ) -> Thread:
        """Begin a thread."""
        thread = Thread(self, name, coroutine, context or self.context.copy())
        self.threads.append(thread)
        return thread

    def turn_of(self, background: str) -> None:
        """One turn of a thread that the package has, and that the machine stands in for."""
        turns: dict[str, Callable[[], object]] = {
            "writer": self._commit_what_is_announced,
            "log": self.engine.logs._move,
            "watch": self.engine.watch.look,
            "sweep": self.engine.recovery.sweep,
            "upkeep": lambda: self.engine.upkeep.take_turn(3),
        }
        try:
            self.context.copy().run(turns[background])
        except errors.OrchestratorError as error:
            # As those threads do: the next turn tries again.
            self.machine.note(f"{self.name} {background}: {error}")

    def _commit_what_is_announced(self) -> None:
        if self.database._writer._queue:
            self.database._writer._lead_from_thread()

    # -- its ends --------------------------------------------------------------------------------

    def close(self) -> None:
        """End as a program does that leaves its ``with`` block."""
        self.context.copy().run(self.orchestrator.close)
        self.is_dead = True

    def kill(self) -> None:
        """SIGKILL: what is not committed is gone, its locks are free, and nothing else happens."""
        self.is_dead = True
        database = self.database
        readers = database._readers
        for connection in [database._connection, *(readers.connections if readers else [])]:
            connection.close(True)
        database._guard.close()
        life = self.engine.owner._life
        if life is not None:
            life.release()
        for thread in self.threads:
            thread.tear_down()
        # What it held in memory of the file, so that the next process is told the truth about it.
        database._is_closed = True
        from embedded_orch.db.sqlite import audit

        audit.unwatch(database.path)

    # -- faults inside of a call -----------------------------------------------------------------

    def _fit_with_faults(self) -> None:
        """Have every statement and every call of the database pass by here."""
        database, writer = self.database, self.database._writer
        database.catalog = _CATALOG
        transaction = writer.transaction
        transaction._catalog = _CATALOG
        run_statement, run_control = transaction._execute, writer._execute

        def execute(*arguments: Any) -> Any:
            self._burn()
            return run_statement(*arguments)

        def control(sql: str) -> Any:
            if sql == "commit":
                self._burn()
            answer = run_control(sql)
            if sql == "commit" and self.dies_after_commit:
                self._die()
            return answer

        acquire = writer._guard.acquire_write

        def acquire_write(**patience: Any) -> None:
            if self.is_locked_out:
                self.is_locked_out = False
                raise errors.DatabaseBusy("another process kept it locked (a fault of the machine)")
            acquire(**patience)

        transaction._execute, writer._execute = execute, control
        writer._guard.acquire_write = acquire_write
        readers = database._readers
        assert readers is not None, "a file in WAL mode has readers"
        readers._catalog = _CATALOG
        for name in ("read", "write", "announce", "begin"):
            setattr(database, name, self._checked(name, getattr(database, name)))

    def _checked(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            if self.is_dead or self.is_dying:
                raise Killed
            if name in ("write", "begin") and self.is_busy:
                self.is_busy = False
                raise errors.DatabaseBusy("another process kept it locked (a fault of the machine)")
            try:
                return call(*args, **kwargs)
            except apsw.Error as error:
                raise AssertionError(f"an error of SQLite escaped: {error!r}") from error

        return checked

    def _burn(self) -> None:
        if self.is_dead or self.is_dying:
            raise Killed
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self._die()

    def _die(self) -> NoReturn:
        self.is_dying = True
        raise Killed

    def __repr__(self) -> str:
        return f"<{self.name}{' dead' if self.is_dead else ''}>"

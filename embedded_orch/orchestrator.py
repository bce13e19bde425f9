"""Opening a database, and the object that owns it."""

from __future__ import annotations

import atexit
import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, Self

from embedded_orch import errors
from embedded_orch.db import urls
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.engine.effects import drive
from embedded_orch.engine.engine import Engine
from embedded_orch.engine.pause_deadlines import expire_pauses
from embedded_orch.process import OWN, Process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from datetime import timedelta
    from types import TracebackType
    from uuid import UUID

    from embedded_orch.artifacts import Artifacts
    from embedded_orch.collections import FlowRuns, Flows, TaskRuns
    from embedded_orch.concurrency.limits import ConcurrencyLimits
    from embedded_orch.db.opening import Shared
    from embedded_orch.db.port import Database
    from embedded_orch.db.rows import Rows
    from embedded_orch.db.session import AsyncSession, Session
    from embedded_orch.engine.retention import Retention
    from embedded_orch.flows import Flow
    from embedded_orch.logs import Logs
    from embedded_orch.recovery import Explanation, Recovered
    from embedded_orch.runs import FlowRun
    from embedded_orch.store.checks import Finding
    from embedded_orch.store.retention import Removed
    from embedded_orch.store_access import Store
    from embedded_orch.upkeep import Repair
    from embedded_orch.variables import Variables

    RetentionSetting = Retention | timedelta | Literal[False] | None


class Registry:
    """The orchestrators that this process has open, and the one that is the default.

    The only state of the package that is not inside an orchestrator.
    """

    def __init__(self) -> None:
        self.process = OWN
        self.databases = OpenDatabases(self.process)
        self._lock = threading.RLock()
        self._open: list[Orchestrator] = []
        self._default: Orchestrator | None = None
        # In a forked child: what was open in the parent, and cannot be meant here.
        self._inherited: list[str] = []
        self._refusal: str | None = None

    def add(self, orchestrator: Orchestrator) -> None:
        """An orchestrator was opened."""
        with self._lock:
            self._open.append(orchestrator)

    def remove(self, orchestrator: Orchestrator) -> None:
        """An orchestrator was closed."""
        with self._lock:
            if orchestrator in self._open:
                self._open.remove(orchestrator)
            if orchestrator is self._default:
                self._default = None

    def current(self) -> Orchestrator:
        """The orchestrator that a call means.

        The innermost ``with`` block's; else the only one that is open; else the default database,
        opened now.

        Raises:
            AmbiguousOrchestrator: several are open on different databases.
            DatabaseClosed: that of the ``with`` block was closed inside of it.
            ForkedProcess: this is a forked child, and what its parent had open would be meant.
        """
        entered = _entered.get()
        if entered is not None:
            # Not another one instead: it would be written to where nobody looks.
            entered.check_open()
            return entered
        with self._lock:
            explicit = [each for each in self._open if each is not self._default]
            databases = {each.database_key: each for each in explicit}
            if len(databases) > 1:
                names = ", ".join(sorted(each.url for each in databases.values()))
                raise errors.AmbiguousOrchestrator(
                    f"several orchestrators are open ({names}), and this call could mean any of "
                    f"them; make it inside `with` of the one you mean"
                )
            if explicit:
                return explicit[-1]
            self.check_allowed()
            if self._inherited:
                # Nor the default database instead: nobody would look for the run there.
                raise errors.ForkedProcess(
                    f"{', '.join(self._inherited)} was opened before fork() and cannot be used in "
                    f"the child; start processes by spawn or forkserver"
                )
            if self._default is None:
                self._default = open_orchestrator(None, recovers_at_once=False)
            return self._default

    def refuse(self, reason: str) -> None:
        """Open no database in this process, as it is not for that."""
        self._refusal = reason

    def check_allowed(self) -> None:
        """Refuse to open a database where that was ruled out.

        Raises:
            MissingContextError: it was.
        """
        if self._refusal is not None:
            raise errors.MissingContextError(self._refusal)

    def hand_over_logs(self, database: Database) -> None:
        """Announce what the orchestrators of a database have logged, before it is read."""
        for orchestrator in list(self._open):
            if orchestrator.engine.database is database:
                orchestrator.engine.logs.hand_over()

    def close_all(self) -> None:
        """Close what is open, when the interpreter exits."""
        for orchestrator in list(self._open):
            try:
                orchestrator.close()
            except Exception:
                import logging

                logging.getLogger("embedded_orch.orchestrator").exception(
                    "%s could not be closed", orchestrator
                )

    def forget_in_child(self) -> None:
        """A forked child has nothing open: what it inherited refuses to be used."""
        inherited = [each.url for each in self._open if each is not self._default]
        self.__init__()  # type: ignore[misc]
        self._inherited = inherited


def current_engine() -> Engine:
    """The engine of the run that the running code is in; outside of runs that of :meth:`current`.

    Raises:
        AmbiguousOrchestrator: several are open on different databases.
    """
    from embedded_orch.engine.contexts import current_flow_run, current_task_run

    run = current_task_run() or current_flow_run()
    return registry.current().engine if run is None else run.engine


_entered: ContextVar[Orchestrator | None] = ContextVar("embedded_orch_entered", default=None)
registry = Registry()
atexit.register(registry.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=registry.forget_in_child)


class Orchestrator:
    """An open database with everything that runs on it.

    Use it with ``with`` or ``async with``, or close it by hand. Any thread may use it. Flows called
    inside the block use it; so do those called in threads that are started inside it, as long as no
    other database is open.
    """

    def __init__(
        self,
        shared: Shared,
        databases: OpenDatabases,
        process: Process,
        *,
        retention: RetentionSetting = None,
    ) -> None:
        self._shared = shared
        self._databases = databases
        self._closing = threading.Lock()
        self._is_closed = False
        self._opener_pid = os.getpid()
        self._previous: list[Orchestrator | None] = []
        self.engine = Engine(
            shared.database,
            process,
            shared.life_path,
            room=shared.room,
            lease_seconds=shared.lease_seconds,
            retention=retention,
        )

    @property
    def database(self) -> Database:
        """The data layer; shared by all orchestrators on one database.

        Raises:
            DatabaseClosed: the orchestrator was closed; others on the database may be open.
        """
        self.check_open()
        return self._shared.database

    @property
    def database_key(self) -> int:
        """The same for all orchestrators that are open on one database."""
        return id(self._shared)

    @property
    def url(self) -> str:
        """What is open, without a password."""
        return self._shared.database.url

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def check_open(self) -> None:
        """Refuse an orchestrator that was closed.

        Raises:
            DatabaseClosed: it was.
        """
        if self._is_closed:
            raise errors.DatabaseClosed(f"this orchestrator on {self.url} is closed; open another")

    @property
    def flows(self) -> Flows:
        """The flows that have run in it."""
        from embedded_orch.collections import Flows

        return Flows(self.database)

    @property
    def flow_runs(self) -> FlowRuns:
        """The flow runs in it."""
        from embedded_orch.collections import FlowRuns

        self.check_open()
        return FlowRuns(self.engine)

    @property
    def task_runs(self) -> TaskRuns:
        """The task runs in it."""
        from embedded_orch.collections import TaskRuns

        return TaskRuns(self.database, self.engine.process)

    @property
    def concurrency_limits(self) -> ConcurrencyLimits:
        """The concurrency limits in it."""
        from embedded_orch.concurrency.limits import ConcurrencyLimits

        self.check_open()
        return ConcurrencyLimits(self.engine)

    @property
    def logs(self) -> Logs:
        """What the runs in it have logged."""
        from embedded_orch.logs import Logs

        return Logs(self.database)

    @property
    def variables(self) -> Variables:
        """The variables in it."""
        from embedded_orch.variables import Variables

        self.check_open()
        return Variables(self.engine)

    @property
    def artifacts(self) -> Artifacts:
        """The artifacts in it."""
        from embedded_orch.artifacts import Artifacts

        self.check_open()
        return Artifacts(self.engine)

    @property
    def store(self) -> Store:
        """Provisional: pools, queues, deployments and claims, until they have an API."""
        from embedded_orch.store_access import Store

        self.check_open()
        return Store(self.engine)

    # -- a person's own statements ---------------------------------------------------------------

    def session(
        self,
        *,
        begin_transaction: bool = False,
        with_for_update: bool = False,
        read_only: bool = False,
    ) -> AbstractContextManager[Session]:
        """Your own statements in the same database and under the same transaction rules.

        Args:
            begin_transaction: one transaction for the whole block; else one for each statement.
            with_for_update: reads of ours in it lock their rows until it ends (Postgres; on
                SQLite a transaction that may write excludes every other writer anyway).
            read_only: nothing in it may write; it sees one snapshot and blocks nobody.
        """
        from embedded_orch.db.session import open_session

        return open_session(
            self.database,
            begin_transaction=begin_transaction,
            with_for_update=with_for_update,
            read_only=read_only,
        )

    def session_context(
        self,
        *,
        begin_transaction: bool = False,
        with_for_update: bool = False,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """:meth:`session` for asynchronous code; a transaction may stay open across awaits."""
        from embedded_orch.db.session import open_async_session

        return open_async_session(
            self.database,
            begin_transaction=begin_transaction,
            with_for_update=with_for_update,
            read_only=read_only,
        )

    def sql(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout_seconds: float = 30.0,
        max_rows: int = 100_000,
    ) -> Rows:
        """Read the database with a statement of your own.

        Args:
            statement: one query, with parameters as ``:name``. The views ``flows``, ``flow_runs``,
                ``task_runs``, ``flow_run_states`` and ``task_run_states`` have readable columns.
            parameters: values for them.
            timeout_seconds: how long it may take.
            max_rows: how many rows it may return.

        Raises:
            StatementRefused: it is wrong, would change something, took too long, or found more.
        """
        return self.database.query(
            statement, parameters, timeout_seconds=timeout_seconds, max_rows=max_rows
        )

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the database to a new file, whole and consistent, while it is in use.

        Results that are in files are copied too, into a folder beside the new file: its name with
        ``-results`` after it. Both belong together.

        Raises:
            ConfigurationError: the file or folder exists, or the database is on a server: use
                pg_dump.
        """
        self.database.backup(os.path.abspath(os.fspath(path)))

    # -- looking after it ------------------------------------------------------------------------

    def prune(
        self,
        older_than: timedelta | None = None,
        *,
        unfinished_older_than: timedelta | None = None,
        dry_run: bool = False,
    ) -> Removed:
        """Remove runs that ended long ago, with all that belongs to them, now and to the last.

        Runs that have not ended are never touched, nor is a run with a flow run below it that has
        not. What is removed is told in docs/upkeep.md. Others may write meanwhile.

        Args:
            older_than: how long ago runs have to have completed; as ``retention`` says when not
                given.
            unfinished_older_than: the same for runs that failed, crashed or were cancelled. When
                not given, as ``retention`` says, and not less than ``older_than``.
            dry_run: change nothing, and count what would be removed by age.

        Returns:
            How many of each kind.

        Raises:
            ConfigurationError: an age below 0, or none at all where retention is off.
        """
        from embedded_orch.upkeep import prune

        return prune(
            self.database,
            self.engine.process,
            self.engine.upkeep.retention,
            older_than=older_than,
            unfinished_older_than=unfinished_older_than,
            dry_run=dry_run,
        )

    def check(self) -> list[Finding]:
        """Look at everything: for damage, for rows that are not there, for contradictions.

        Returns:
            What is not as it has to be, a finding for each thing; nothing when all is well. Of what
            is found many times, the first twenty.
        """
        from embedded_orch.upkeep import check

        return check(self.database, self.engine.process.now())

    def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Mend what :meth:`check` finds, as far as that can be done without guessing.

        A SQLite file is copied first, to ``<file>-before-repair-<n>``. Runs are never removed.

        Args:
            dry_run: change nothing, and say what there is to do.

        Returns:
            Each finding, and whether it was mended.

        Raises:
            DatabaseError: the database cannot be copied or written.
        """
        from embedded_orch.upkeep import Repairing

        repairing = Repairing(self.database, self.engine.process)
        return list(repairing.would_do() if dry_run else repairing.steps())

    def vacuum(self) -> None:
        """Give the room of what was removed back to the file system, all of it.

        Not needed for a file to stop growing: new rows take that room first. Others may write
        meanwhile, but for a file that was not made by this program, which is rebuilt once.

        Raises:
            WouldDeadlock: the caller has a transaction open.
        """
        self.database.vacuum()

    def drop_unused_results(self) -> int:
        """Remove the files of results that no run and no unexpired cache key names any more.

        A few of them are looked at whenever an orchestrator closes that has run a flow, and
        whenever runs are removed; this looks at all. Any process may call it at any time.

        Returns:
            How many files were removed.

        Raises:
            WouldDeadlock: the caller has a transaction open, which may be rolled back.
        """
        from embedded_orch.engine.unused_files import remove_all

        return remove_all(self.database, self.engine.process)

    # -- interrupted runs ------------------------------------------------------------------------

    def recover(self, run_id: UUID | str | None = None, *, force: bool = False) -> Recovered:
        """Set right what processes left that are gone: their runs, slots, queue claims and locks.

        It is done by itself when a database is opened, and by whatever waits; this is for whoever
        wants to be sure that it is done now. Flow runs become Crashed; those whose flow says
        ``on_crash="resume"`` wait for :meth:`resume_crashed`; those that were claimed from a queue
        and not begun are back there. What is done once is not done again.

        Args:
            run_id: only the process of this flow run is looked at; all processes when not given.
            force: take the run, with all that it called, also from a process that lives, such as
                one that is stopped or hangs. That process writes nothing of the run any more; its
                flow ends with OwnershipLost once it goes on.

        Returns:
            What was done.

        Raises:
            RunNotFound: no flow run has this id.
            RunNotRecoverable: a living process runs it, and ``force`` was not asked for.
            ConfigurationError: ``force`` without a run.
        """
        from embedded_orch.recovery import recovering

        self.check_open()
        return drive(recovering(self.engine, run_id, force=force))

    async def arecover(self, run_id: UUID | str | None = None, *, force: bool = False) -> Recovered:
        """:meth:`recover` without blocking the event loop."""
        from embedded_orch.engine.effects import drive_async
        from embedded_orch.recovery import recovering

        self.check_open()
        return await drive_async(recovering(self.engine, run_id, force=force))

    def why(self, run_id: UUID | str) -> Explanation:
        """Why a flow run or task run is where it is, and what would move it.

        ``str()`` of the answer says it in words; its attributes are the same as data.

        Args:
            run_id: the run.

        Raises:
            RunNotFound: no run has this id.
        """
        from embedded_orch.recovery import explaining_run

        self.check_open()
        return drive(explaining_run(self.engine, run_id))

    async def awhy(self, run_id: UUID | str) -> Explanation:
        """:meth:`why` without blocking the event loop."""
        from embedded_orch.engine.effects import drive_async
        from embedded_orch.recovery import explaining_run

        self.check_open()
        return await drive_async(explaining_run(self.engine, run_id))

    def resume_crashed(
        self, *flows: Flow[..., Any], max_resumes: int | None = None
    ) -> list[FlowRun]:
        """Resume the runs whose process died and whose flow says ``on_crash="resume"``.

        One after the other, oldest first. A run is resumed by the flow of its name among ``flows``,
        or by the one that its entry point names in a module that is imported already; nothing is
        imported. Runs whose flow is not found stay as they are, and are warned about. Then
        :meth:`resume_due` and :meth:`run_owed_hooks`.

        Args:
            flows: see above.
            max_resumes: how often in a row a run is resumed without one more task that completed;
                what its flow says when not given. A run whose process dies each time is Crashed for
                good then, with the tasks named that were running. ``flow.resume`` still resumes it.

        Returns:
            The runs that were resumed, as they are now.
        """
        from embedded_orch.recovery import resume_crashed

        return resume_crashed(self, flows, max_resumes=max_resumes)

    def resume_due(self, *flows: Flow[..., Any]) -> list[FlowRun]:
        """Resume the runs that were suspended until a time or for a signal, and it has come.

        Those of ``sleep_for(..., suspend=True)`` and the like. One after the other, oldest first;
        a flow is found as by :meth:`resume_crashed`, which calls this too.

        Returns:
            The runs that were resumed, as they are now; one that was suspended again among them.
        """
        from embedded_orch.recovery import resume_due

        return resume_due(self, flows)

    def send_signal(self, run_id: UUID | str, name: str, value: Any = None) -> bool:
        """Send a signal to a flow run; see :func:`embedded_orch.send_signal`."""
        from embedded_orch.engine.waits import send
        from embedded_orch.filters import as_uuid

        self.check_open()
        return drive(send(self.engine, as_uuid(run_id, "flow run"), name, value))

    def run_owed_hooks(self, *flows: Flow[..., Any]) -> list[FlowRun]:
        """Call the hooks of flow runs that have ended, and whose process died before it could.

        It died between the last commit and the last hook, or its runs were found and set Crashed.
        One process alone calls them; should it die too, the next one calls them again: at least
        once. A flow is found as by :meth:`resume_crashed`, which calls this too. Hooks of tasks
        are not owed: they are called by the process that runs the task, or not at all.

        Returns:
            The runs whose hooks were called.
        """
        from embedded_orch.recovery import run_owed_hooks

        return run_owed_hooks(self, flows)

    # -- the end ---------------------------------------------------------------------------------

    def close(self, *, wait: bool = False, cancel: bool = False) -> None:
        """End or give up its runs, commit what was announced, and let go of the database.

        Runs that other threads and tasks still run in it are given up, unless it is said what to do
        with them: they are recorded as Crashed, and whatever they do next is refused.

        In a forked child there is nothing to do: all of it is the parent's.

        Args:
            wait: wait until they have ended.
            cancel: have them end early, as Cancelled, and wait for that.

        Raises:
            WouldDeadlock: it was called by one of the runs that it would wait for.
        """
        if os.getpid() != self._opener_pid:
            return
        if (wait or cancel) and not self._is_closed:
            self._end_runs(cancel=cancel)
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        registry.remove(self)
        try:
            self._give_up_runs()
        finally:
            self._databases.close(self._shared)

    def _end_runs(self, *, cancel: bool) -> None:
        from embedded_orch.engine.contexts import current_flow_run

        here = current_flow_run()
        if here is not None and here.engine is self.engine:
            raise errors.WouldDeadlock(
                f"an orchestrator was to be closed, and its runs waited for, inside of one of "
                f"them: flow run {here.name}"
            )
        if cancel:
            self.engine.owner.cancel_all("the orchestrator was closed")
        self.engine.owner.wait_until_idle()

    def _give_up_runs(self) -> None:
        try:
            self.engine.close()
        except errors.DatabaseError as error:
            # A full disk, or a server that is away: the next one to open it finds this owner gone,
            # and writes down what could not be written now.
            import logging

            logging.getLogger("embedded_orch.orchestrator").warning(
                "%s was closed, and what it was still running could not be marked: %s", self, error
            )

    def __enter__(self) -> Self:
        self.check_open()
        self._previous.append(_entered.get())
        _entered.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave():
            self.close()

    def _leave(self) -> bool:
        """Give way to what was meant before the block; whether it was the outermost one."""
        _entered.set(self._previous.pop())
        return not self._previous

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import anyio
        import anyio.to_thread

        if self._leave():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.close)

    def __repr__(self) -> str:
        return f"<Orchestrator {self.url}{' closed' if self._is_closed else ''}>"


def open_orchestrator(
    url: str | os.PathLike[str] | None = None,
    *,
    process: Process | None = None,
    retention: RetentionSetting = None,
    recovers_at_once: bool = True,
    **settings: Any,
) -> Orchestrator:
    """Open a database; see :func:`embedded_orch.open`.

    Args:
        url: of the database.
        process: whose clock, ids and sleep its runs have; for tests. This process's own when not
            given.
        retention: how long runs are kept.
        recovers_at_once: whether what dead processes left is set right before this returns, as far
            as one transaction goes; not so on the way to a first flow.
        settings: of the database.
    """
    registry.check_allowed()
    _check_retention(retention)
    databases = registry.databases
    shared = databases.open(urls.default_url() if url is None else url, settings)
    try:
        orchestrator = Orchestrator(
            shared, databases, process or registry.process, retention=retention
        )
        orchestrator.engine.recovery.begin(at_once=recovers_at_once)
        drive(expire_pauses(orchestrator.engine))
    except BaseException:
        databases.close(shared)
        raise
    registry.add(orchestrator)
    return orchestrator


def _check_retention(retention: RetentionSetting) -> None:
    """Refuse one that is not understood now, and not when it is needed."""
    if retention is not None or "EMBEDDED_ORCH_RETENTION" in os.environ:
        from embedded_orch.engine.retention import retention_of

        retention_of(retention)


def open(
    url: str | os.PathLike[str] | None = None,
    *,
    retention: RetentionSetting = None,
    **settings: Any,
) -> Orchestrator:
    """Open a database, made and migrated if need be, and run flows on it.

    Args:
        url: a path, ``sqlite:///path``, ``:memory:`` or ``postgresql://...``. Without one, the
            default database: ``EMBEDDED_ORCH_URL``, else ``orch.db`` in ``EMBEDDED_ORCH_HOME``,
            else in this platform's folder for the user's data.
        retention: how long runs are kept that have ended: a :class:`Retention`; a timedelta for
            those that completed; False for ever. When not given, as ``EMBEDDED_ORCH_RETENTION``
            says, else 90 days, a year for those that did not complete, and 4 GB of a file.
        settings: on SQLite ``durability`` ("normal", "full", "off"), ``journal`` ("wal",
            "truncate"), ``cache_size`` (pages), ``busy_timeout_seconds``, ``max_readers``,
            ``checkpoint_pages``, ``inline_result_bytes``; on Postgres those of
            :class:`embedded_orch.db.postgres.options.PostgresOptions`.

    Returns:
        An open orchestrator. Two of one database share everything but their ownership of runs.

    Raises:
        ConfigurationError: a wrong URL, an unknown setting, or another one than it is open with.
        DatabaseError: it cannot be opened; nothing was changed.
    """
    return open_orchestrator(url, retention=retention, **settings)

"""The one writer of a SQLite file in this process: group commit without a hop for a lone caller.

Callers append what they want written to a queue. Whoever finds the *turn* free takes it, leads:
begins one IMMEDIATE transaction, runs every queued operation in it, its own and those of callers
that came meanwhile, commits once, answers them all, and passes the turn on. So a lone caller
commits in its own thread without meeting another, and eight busy threads share their commits.

Operations run without savepoints, because almost none fails. When one raises, the transaction is
rolled back and each operation of the group runs again in a transaction of its own, so that the
failure is answered to its caller alone; that is why an operation must be able to run twice.

Two more kinds of caller: an event loop, which must not wait for a lock, leaves its request to the
writer's thread; and an announced write is waited for by nobody, is committed with the next group,
or by the thread after at most 10 ms. The thread starts with the first of these and sleeps while
there are none.

Checkpoints are a step of their own: the leader copies the log into the file once it has answered
its group (:mod:`embedded_orch.db.sqlite.checkpoints`).
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from embedded_orch import errors
from embedded_orch.db.bell import Bell
from embedded_orch.db.flusher import Flusher
from embedded_orch.db.sqlite.checkpoints import Checkpoints
from embedded_orch.db.sqlite.connecting import translate
from embedded_orch.db.sqlite.transaction import SQLiteTransaction
from embedded_orch.db.sqlite.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import R, Transaction
    from embedded_orch.db.sqlite.guard import FileGuard
    from embedded_orch.db.sqlite.log_room import LogRoom
    from embedded_orch.db.sqlite.presence import Presence
    from embedded_orch.db.statements import Catalog
    from embedded_orch.values.places import Places

# A group is committed together; more than this only makes the first of it wait.
_MOST_IN_A_GROUP = 256


class Request:
    """One operation on its way through the writer, and its outcome."""

    __slots__ = ("_bell", "error", "is_done", "notify", "operation", "value")

    def __init__(
        self,
        operation: Callable[[Transaction], Any],
        notify: Callable[[], None] | None = None,
    ) -> None:
        self.operation = operation
        self.notify = notify
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        if notify is None:
            # Else it is a lock to make, and nobody hears it.
            self._bell = Bell()

    def finish(self) -> None:
        """Tell whoever waits that ``value`` or ``error`` is final."""
        self.is_done = True
        if self.notify is not None:
            self.notify()
        else:
            self._bell.ring()

    def nudge(self) -> None:
        """Wake the waiting thread: it is answered, or its turn to lead has come."""
        self._bell.ring()

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep until nudged; False when ``seconds`` went by instead."""
        return self._bell.wait(seconds)

    def outcome(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.value


class AnnouncedWrite(Request):
    """A request that nobody waits for."""

    __slots__ = ()

    def __init__(self, operation: Callable[[Transaction], Any]) -> None:
        # No bell: that is a lock to make, and nobody hears it.
        self.operation = operation
        self.notify = None
        self.value = None
        self.error = None
        self.is_done = False

    def finish(self) -> None:
        """Keep the outcome for whoever asks later."""
        self.is_done = True
        # What it was made of may hold this: with it let go, both end without the garbage collector.
        self.operation = _nothing

    def nudge(self) -> None:
        """Nobody sleeps on it."""
        return


class Writer:
    """Owns the write connection of one database, and the turn to use it.

    Any thread may call it. It is closed by the database that made it, after its last caller.

    Args:
        connection: the write connection.
        catalog: the statements of its dialect.
        places: where values are that are not in rows.
        guard: the lock between processes; None for a database that no other process can open.
        presence: whether the file is still there; None where there is none.
        busy_timeout_seconds: how long a caller waits for the turn.
        checkpoint_pages: at how many pages of log to checkpoint; None where there is no log.
        name: of the database, for messages.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        catalog: Catalog,
        *,
        places: Places,
        guard: FileGuard | None,
        presence: Presence | None,
        busy_timeout_seconds: float,
        checkpoint_pages: int | None,
        name: str,
    ) -> None:
        self.transaction = SQLiteTransaction(connection, catalog, places=places)
        self._connection = connection
        self._execute = connection.cursor().execute
        self._guard = guard
        self._presence = presence
        self._patience = busy_timeout_seconds
        self._name = name
        self._queue: deque[Request] = deque()
        self._turn = Turn()
        self.checkpoints: Checkpoints | None = None
        if checkpoint_pages is not None:
            self.checkpoints = Checkpoints(
                connection,
                name,
                guard,
                pages=checkpoint_pages,
                busy_timeout_seconds=busy_timeout_seconds,
            )
        # Made ahead in the log, where commits are synced.
        self.room: LogRoom | None = None
        # Whether the group that is on its way holds an announced write, which readers wait for.
        self._is_announced_leaving = False
        self._thread = Flusher(
            f"embedded_orch writer {name}",
            has_work=lambda: bool(self._queue),
            work=self._lead_from_thread,
            rest=self._rest,
        )

    # -- what callers do ---------------------------------------------------------------------

    def write(self, operation: Callable[[Transaction], R]) -> R:
        """Run an operation in a write transaction; returns once it is committed."""
        request = Request(operation)
        try:
            self._queue.append(request)
            self._await(request)
        except BaseException:
            # Ctrl-C, here or in the operation: nobody waits for it any more. And this thread may
            # have the turn, or have been told just now to take it.
            self.withdraw(request)
            self.give_turn(request)
            raise
        if request.error is not None:
            raise request.error
        answer: R = request.value
        return answer

    def announce(self, operation: Callable[[Transaction], object]) -> AnnouncedWrite:
        """Queue an operation; it is committed with the next group or within 10 ms."""
        request = AnnouncedWrite(operation)
        self._queue.append(request)
        self._thread.wake_soon()
        return request

    def hand_over(self, request: Request) -> None:
        """Leave a request with a ``notify`` to the writer's thread."""
        self._queue.append(request)
        self._thread.wake_now()

    def withdraw(self, request: Request) -> bool:
        """Take a request back; False when its transaction has begun."""
        try:
            self._queue.remove(request)
        except ValueError:
            return False
        return True

    def flush(self) -> None:
        """Return when everything that was announced before this call is committed."""
        if self.has_queued:
            self.write(_nothing)

    @property
    def has_queued(self) -> bool:
        """Whether something waits to be committed, or was announced and is on its way."""
        return bool(self._queue) or self._is_announced_leaving

    def read(self, operation: Callable[[Transaction], R]) -> R:
        """Run a read on the write connection, for databases that have only that one."""
        return self.with_turn(lambda: self._read_in_turn(operation))

    def _read_in_turn(self, operation: Callable[[Transaction], R]) -> R:
        while self._queue:
            self._lead()
        self._execute("begin deferred")
        try:
            return operation(self.transaction)
        except apsw.Error as error:
            raise translate(error, self._name) from error
        finally:
            self._roll_back()

    def with_turn(self, use: Callable[[], R]) -> R:
        """What ``use`` returns, which uses the write connection."""
        holder = object()
        try:
            self.take_turn(holder)
            return use()
        finally:
            try:
                self.give_turn(holder)
            except BaseException:
                # Interrupted: once more, or nobody would ever have the turn again.
                self.give_turn(holder)
                raise

    def take_turn(self, holder: object) -> None:
        """Wait for the write connection and keep it; for transactions that stay open.

        Args:
            holder: for whom, this once.

        Raises:
            DatabaseBusy: another had it for longer than the busy timeout.
        """
        try:
            is_taken = self._turn.take(holder, seconds=self._patience)
        except BaseException:
            self.give_turn(holder)
            raise
        if not is_taken:
            # Who found this one waiting before it did not take a turn that was free.
            self._pass_on()
            raise self._busy()

    def _busy(self) -> errors.DatabaseBusy:
        return errors.DatabaseBusy(
            f"{self._name}: another transaction of this process has been open for "
            f"{self._patience:g} s, and nothing was written; end it, or open with a larger "
            f"busy_timeout_seconds"
        )

    def give_turn(self, holder: object) -> None:
        """Let the next caller write. Does nothing when the turn is another's."""
        if self._turn.is_held_by(holder):
            self._leave_clean()
        self._turn.give(holder)
        if self._queue:
            self._pass_on()

    def _leave_clean(self) -> None:
        """End what Ctrl-C kept from its end: the step that ends it can be interrupted as well."""
        has_lock = self._guard is not None and self._guard.has_write_lock
        try:
            if has_lock or self._connection.in_transaction:
                self._end_transaction()
        except apsw.ConnectionClosedError:
            # The database was closed by another thread, and that ended it.
            return

    # -- transactions that stay open (sessions) ------------------------------------------------

    def begin(self) -> None:
        """Begin a write transaction. The caller has the turn."""
        while self._queue:
            self._lead()
        try:
            if self._guard is not None:
                self._guard.acquire_write()
            if self._presence is not None:
                self._presence.check()
            self._execute("begin immediate")
        except BaseException as error:
            self.roll_back()
            if isinstance(error, apsw.Error):
                raise translate(error, self._name) from error
            raise

    def commit(self) -> None:
        """Commit what :meth:`begin` began."""
        try:
            self._commit()
        except apsw.Error as error:
            raise translate(error, self._name) from error
        finally:
            self.roll_back()

    def roll_back(self) -> None:
        """End the transaction, if one is open, and let other processes write."""
        self._end_transaction()
        if self.checkpoints is not None:
            self.checkpoints.run_if_due()

    def _end_transaction(self) -> None:
        try:
            self._roll_back()
        finally:
            if self._guard is not None:
                self._guard.release_write()

    # -- leading -------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        # After the turn is free: who appended before that and found it taken sleeps, and is
        # waked here; who appends later finds it free.
        for request in list(self._queue):
            if request.notify is not None:
                self._thread.wake_now()
                return
            if type(request) is Request:
                request.nudge()
                return

    def _lead(self) -> None:
        """Commit one group. The caller has the turn."""
        if not self._queue:
            return
        group: list[Request] = []
        try:
            self._take_group(group)
            self._is_announced_leaving = AnnouncedWrite in map(type, group)
            try:
                self._commit_group(group)
            except Exception as error:  # noqa: BLE001 - an operation of a user's making: its caller gets it
                for request in group:
                    if request.error is None:
                        request.error = error
            self._is_announced_leaving = False
            for request in group:
                request.finish()
        except BaseException:
            # Ctrl-C in the leader is not the others' affair.
            self._put_back(group)
            raise
        if self.checkpoints is not None:
            self.checkpoints.run_if_due()

    def _take_group(self, group: list[Request]) -> None:
        # Before anything leaves the queue: a reader looks there first.
        self._is_announced_leaving = True
        try:
            # In one step of the interpreter: Ctrl-C between two, one that takes a request and one
            # that keeps it, would lose it.
            # Not more than there are: asking an empty queue for one more costs an exception.
            count = min(len(self._queue), _MOST_IN_A_GROUP)
            group.extend(islice(iter(self._queue.popleft, None), count))
        except IndexError:
            # One was withdrawn just now. Those were all, and they are in the group.
            return

    def _put_back(self, group: list[Request]) -> None:
        """Have another leader run again what has no answer yet."""
        self._is_announced_leaving = False
        for request in reversed(group):
            if request.is_done:
                # Perhaps it was not told so far.
                request.finish()
            else:
                request.error = None
                self._queue.appendleft(request)

    def _commit_group(self, group: list[Request]) -> None:
        try:
            self._in_one_transaction(group)
        except errors.CommitOutcomeUnknown as unknown:
            self._run_again(group, unknown)
        except apsw.Error as error:
            translated = translate(error, self._name)
            if isinstance(translated, errors.DatabaseUnavailable | errors.DatabaseBusy):
                raise translated from error
            self._one_by_one(group, translated, error)
        except (errors.DatabaseBusy, errors.DatabaseLost):
            # Another process has the lock file, or ours is gone: nothing was run.
            raise
        except Exception as error:  # noqa: BLE001 - told by the error that it came of
            self._one_by_one(group, error, None)

    def _run_again(self, group: list[Request], unknown: errors.CommitOutcomeUnknown) -> None:
        """Settle a commit whose outcome is unknown.

        Looking whether its rows are there would not do: when the sync of the log failed, they are
        not seen now, and may come back when the file is opened the next time (measured under
        durability "full": 43 of 85). What the operations write carries its ids, so running them
        again answers the same in either case, and the new commit takes the place of the old.
        """
        try:
            self._in_one_transaction(group)
        except Exception as error:
            raise unknown from error

    def _one_by_one(self, group: list[Request], error: Exception, cause: Exception | None) -> None:
        if len(group) == 1:
            error.__cause__ = cause or error.__cause__
            group[0].error = error
            return
        for request in group:
            try:
                self._alone(request)
            except apsw.Error as failure:
                request.error = translate(failure, self._name)
                request.error.__cause__ = failure
            except Exception as failure:  # noqa: BLE001 - an operation of a user's making: its caller gets it
                request.error = failure

    def _alone(self, request: Request) -> None:
        try:
            self._in_one_transaction([request])
        except errors.CommitOutcomeUnknown as unknown:
            self._run_again([request], unknown)

    def _in_one_transaction(self, group: list[Request]) -> None:
        guard = self._guard
        try:
            if guard is not None:
                # The lock file before BEGIN: a process that waits for it holds nothing of SQLite's.
                guard.acquire_write()
            if self._presence is not None:
                self._presence.check()
            transaction = self.transaction
            try:
                self._execute("begin immediate")
                if self.room is not None and self.checkpoints is not None:
                    self.room.have_behind(self.checkpoints.log_pages)
                for request in group:
                    request.value = request.operation(transaction)
                self._commit()
            except BaseException:
                self._roll_back()
                raise
        finally:
            if guard is not None:
                guard.release_write()

    def _commit(self) -> None:
        try:
            self._execute("commit")
        except apsw.ConstraintError:
            # Raised before anything is written.
            raise
        except apsw.Error as error:
            # Not BusyError either: the lock is held since BEGIN, so it can only mean a sync that
            # was answered so.
            if isinstance(error, apsw.FullError) and not self._may_come_back():
                raise
            raise errors.CommitOutcomeUnknown(
                f"{self._name}: the commit raised, and what it held may or may not be there when "
                f"the database is opened the next time; look before you repeat it ({error})"
            ) from error

    def _may_come_back(self) -> bool:
        # SQLite has done it as a rule, and the log can only be looked at then.
        self._roll_back()
        return self.checkpoints is not None and self.checkpoints.may_come_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._execute("rollback")

    def _await(self, request: Request) -> None:
        """Return once a request is answered, by this thread if the turn is free."""
        deadline = 0.0
        while not request.is_done:
            if self._turn.take_if_free(request):
                try:
                    self._lead()
                finally:
                    self.give_turn(request)
                continue
            deadline = deadline or time.monotonic() + self._patience
            if not request.wait(max(0.0, deadline - time.monotonic())):
                self._give_up(request)

    def _give_up(self, request: Request) -> None:
        if self.withdraw(request):
            raise self._busy()
        # Too late to take it back: a leader has it, and will answer.
        request.wait()

    def empty_log(self) -> None:
        """Copy the log into the file and cut it to nothing, if nobody goes on reading.

        New reads wait for it if need be. The caller has the turn.
        """
        if self.checkpoints is not None:
            self.checkpoints.empty_log(holding_readers=True)

    # -- the thread ----------------------------------------------------------------------------

    def _lead_from_thread(self) -> None:
        holder = object()
        if self._turn.take_if_free(holder) or self._has_waited_for_turn(holder):
            try:
                self._lead()
            finally:
                self.give_turn(holder)

    def _has_waited_for_turn(self, holder: object) -> bool:
        """Whether the turn came in time; else those who have waited for it are answered so."""
        waiting = [request for request in list(self._queue) if request.notify is not None]
        try:
            self.take_turn(holder)
        except errors.DatabaseBusy as busy:
            for request in waiting:
                if self.withdraw(request):
                    request.error = busy
                    request.finish()
            return False
        return True

    def _rest(self) -> None:
        holder = object()
        if not self._turn.take_if_free(holder):
            # A session is open: the log is copied the next time, or at the end.
            return
        try:
            if self.checkpoints is not None and not self._queue:
                self.checkpoints.rest()
        finally:
            self.give_turn(holder)

    def close(self) -> None:
        """Commit what is queued, stop the thread, and empty the log. Nobody else may write."""
        try:
            self.flush()
        finally:
            # Also when the disk has failed: the connection that it works on is closed next.
            self._thread.stop()
            if self.checkpoints is not None:
                self.checkpoints.close()
        holder = object()
        self.take_turn(holder)
        try:
            while self._queue:
                self._lead()
            self.empty_log()
        finally:
            self._turn.give(holder)


def _nothing(transaction: Transaction) -> None:
    """An operation that only waits for those before it."""

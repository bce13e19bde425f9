"""Every exception that embedded_orch raises.

OrchestratorError
├── ConfigurationError              what was asked for cannot be, whatever the data
│   ├── InvalidURL
│   ├── MissingExtra                a package of an optional extra is not installed
│   ├── OptionNotSupported          an option that this version does not honour yet
│   ├── UnknownFilter
│   ├── AmbiguousOrchestrator       two open orchestrators could be meant
│   ├── MissingContextError         needs a running flow or task
│   └── SignatureError              a decorated function that cannot be called as a flow or task
├── DatabaseError
│   ├── DatabaseUnavailable         cannot be reached or opened now
│   │   ├── AuthenticationFailed
│   │   ├── DatabaseReadOnly
│   │   ├── DatabaseFull
│   │   ├── DatabaseLost            its file was removed or replaced while it was open
│   │   └── PoolExhausted           every connection is in use
│   ├── DatabaseBusy                another process kept the lock longer than busy_timeout
│   ├── DatabaseClosed
│   ├── NotOurDatabase              a file or schema that something else wrote
│   ├── DatabaseDamaged             truncated or corrupt
│   ├── DatabaseTooNew              written by a newer version of this library
│   ├── MigrationFailed
│   ├── NetworkFilesystem           WAL does not work where the file lies
│   ├── ForkedProcess               opened before fork(), used after it in the child
│   ├── ForeignAccess               another SQLite would have dropped our locks
│   ├── WouldDeadlock               a second writer in the thread or task that holds the first
│   ├── TransactionFailed           rolled back, after the retries that were allowed
│   ├── CommitOutcomeUnknown        a commit that raised and may have happened
│   ├── ConstraintViolated
│   └── StatementRefused            orch.sql(): not read-only, wrong, too long or too large
├── RunError                        about one flow or task run
│   ├── RunNotFound
│   ├── RunNotResumable
│   ├── RunChanged                  a strict run is resumed, and its code or its calls have changed
│   ├── RunNotRecoverable           a living process runs it, and force was not asked for
│   ├── RunNotCancellable           it has ended otherwise
│   ├── RunNotPausable              it cannot pause, or be suspended, as it is (also a RuntimeError)
│   ├── NotPausedError              a run that is to be resumed is not paused
│   ├── FlowPauseTimeout            it was paused, and not resumed in time
│   ├── RunInputError               an input that does not fit what a run waits for
│   ├── SignalTimeout               a signal was not sent in time (also a TimeoutError)
│   ├── SignalRefused               a run that has completed takes no signal
│   ├── ParametersNeeded            a resumed run has parameters that were not stored
│   ├── OwnershipLost               another process has taken the run over
│   ├── MissingResult               the run finished, its value was not kept
│   ├── UnfinishedRun               it has no result yet (also a RuntimeError)
│   │   ├── PausedRun
│   │   └── UpstreamFailed          an argument came from a run that did not complete
│   ├── FailedRun
│   ├── CrashedRun
│   ├── CancelledRun
│   └── RunTimedOut                 took longer than timeout_seconds (also a TimeoutError)
├── ParameterBindError              arguments that do not fit the signature (also a TypeError)
├── ParameterTypeError              an argument that is not of the declared type (also a TypeError)
├── MappingError
│   ├── MappingLengthMismatch
│   └── MappingMissingIterable
├── ProcessPoolError                a process of a pool that cannot do its work
├── ValueNotPicklable               a value that cannot go to another process (also a TypeError)
├── ConcurrencySlotAcquisitionError slots of a concurrency limit that cannot be had
├── AcquireConcurrencySlotTimeoutError  they were not free in time (also a TimeoutError)
├── ConcurrencyLeaseLost            held slots went to somebody else: this host was not heard of
├── LimitNotFound                   no concurrency limit has this name
└── ValueNotStorable                a value that would not come back equal and of its type

Signal (a BaseException)            ends what runs, and is no failure of it
├── Abort                           what was asked for is not going to be
└── Pause                           the run was suspended: its process has done its part
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.states import State


class Signal(BaseException):
    """What ends a run without being a failure of it; code that catches Exception lets it pass."""

    def __init__(self, *args: object, state: State[Any] | None = None) -> None:
        super().__init__(*args)
        self.state = state


class Abort(Signal):
    """What was asked for is not going to be."""


class Pause(Signal):
    """The run was suspended, and its process has done its part of it.

    Attributes:
        state: the state of the run.
    """


class OrchestratorError(Exception):
    """Base class of everything that embedded_orch raises on its own account."""


class ConfigurationError(OrchestratorError, ValueError):
    """What was asked for cannot be, whatever the data: the call has to change."""


class InvalidURL(ConfigurationError):
    """A database URL that names no database we know how to open."""


class MissingExtra(ConfigurationError, ImportError):
    """A package is not installed that comes with an extra, such as ``[postgres]``."""


class OptionNotSupported(ConfigurationError):
    """An option of Prefect's that this version does not honour, and so does not accept."""


class UnknownFilter(ConfigurationError):
    """A filter that the collection does not have; the message names those it has."""


class AmbiguousOrchestrator(ConfigurationError):
    """Two different orchestrators are open, and the call could mean either."""


class MissingContextError(ConfigurationError, RuntimeError):
    """The call only makes sense while a flow or a task runs."""


class SignatureError(ConfigurationError, TypeError):
    """A function that cannot be a flow or a task, found when it was decorated."""


class DatabaseError(OrchestratorError):
    """Something about the database, not about one run."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached or opened now; nothing was changed."""


class AuthenticationFailed(DatabaseUnavailable):
    """The server refused the user or the password."""


class DatabaseReadOnly(DatabaseUnavailable):
    """The file or its folder cannot be written."""


class DatabaseFull(DatabaseUnavailable):
    """No room left on the disk; the transaction was rolled back."""


class DatabaseLost(DatabaseUnavailable):
    """The file was removed, or another one put in its place, while it was open."""


class PoolExhausted(DatabaseUnavailable):
    """Every connection stayed in use for as long as a caller may wait for one."""


class DatabaseBusy(DatabaseError):
    """Another process held the write lock longer than ``busy_timeout``."""


class DatabaseClosed(DatabaseError):
    """The orchestrator was closed before the call."""


class NotOurDatabase(DatabaseError):
    """The file or schema exists and was written by something else; it was not touched."""


class DatabaseDamaged(DatabaseError):
    """The file is truncated or corrupt; it was not changed."""


class DatabaseTooNew(DatabaseError):
    """A newer version of embedded_orch wrote this database; it was not changed."""


class MigrationFailed(DatabaseError):
    """A migration did not apply; its transaction was rolled back."""


class NetworkFilesystem(DatabaseError):
    """The file lies where write-ahead logging does not work."""


class ForkedProcess(DatabaseError):
    """An object that was opened before ``fork()`` was used in the child."""


class ForeignAccess(DatabaseError):
    """Another SQLite library, or a plain ``open()``, would have dropped our file locks."""


class WouldDeadlock(DatabaseError):
    """A write that could only wait for the transaction that its own caller holds open."""


class TransactionFailed(DatabaseError):
    """A transaction that was rolled back and has used up its retries."""


class CommitOutcomeUnknown(DatabaseError):
    """A commit that raised: what it held is either all there or not there at all."""


class ConstraintViolated(DatabaseError):
    """A statement that would have broken a rule of the schema; it was rolled back."""


class StatementRefused(DatabaseError):
    """``orch.sql()`` refused or stopped a statement; the message says why."""


class RunError(OrchestratorError):
    """Something about one flow or task run."""


class RunNotFound(RunError, LookupError):
    """No run has this id."""


class RunNotResumable(RunError):
    """The run is in a state that a resume cannot continue, or it runs elsewhere now."""


class Change(NamedTuple):
    """How a resumed run differs from what is on record of it.

    Attributes:
        task: the module and qualified name of the task.
        what: "code" or "calls".
        recorded: of a changed code, a call that was recorded, and a hash of the source then; of
            changed calls, the recorded ones that were not made again.
        came: the hash of the source now; the calls that were made instead, if any.
    """

    task: str
    what: str
    recorded: tuple[str, ...]
    came: tuple[str, ...]

    def __str__(self) -> str:
        recorded, came = _some(self.recorded), _some(self.came)
        if self.what == "code":
            return (
                f"the source of {self.task} has changed: {recorded} is on record, now it is {came}"
            )
        made = f"; made instead: {came}" if came else ""
        return f"calls of {self.task} that are on record were not made again: {recorded}{made}"


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


class RunChanged(RunError):
    """A run that is strict was resumed, and its code or its calls are not what is on record.

    Attributes:
        changes: what has changed, as far as it was seen.
    """

    def __init__(self, message: str, changes: tuple[Change, ...] = ()) -> None:
        super().__init__(message)
        self.changes = changes


class RunNotRecoverable(RunError):
    """A run that is to be taken from its process, which lives and runs it."""


class RunNotCancellable(RunError):
    """The run has ended, and not by being cancelled."""


class RunNotPausable(RunError, RuntimeError):
    """The run cannot pause, or cannot be suspended, as things are."""


class NotPausedError(RunError):
    """The run that is to be resumed is not paused."""


class FlowPauseTimeout(RunError):
    """The run was paused, and not resumed in time."""


class RunInputError(RunError, RuntimeError):
    """An input that is not what the run waits for; the run stays paused."""


class SignalTimeout(RunError, TimeoutError):
    """The signal that the run waits for was not sent in time."""


class SignalRefused(RunError):
    """The run has completed, and takes no signal any more."""


class ParametersNeeded(RunError):
    """The run was called with values that could not be stored; resuming it asks for them."""


class OwnershipLost(RunError):
    """Another process has taken the run over; this one changed nothing after that."""


class MissingResult(RunError):
    """The run finished, and its value was not kept."""


class UnfinishedRun(RunError, RuntimeError):
    """The result of a run was asked for that has none yet."""


class UpstreamFailed(UnfinishedRun):
    """The result of a run was asked for that was not made, since one before it did not complete."""


class PausedRun(UnfinishedRun):
    """The result of a paused run was asked for."""


class FailedRun(RunError):
    """The run failed, and the exception itself is not at hand."""


class CrashedRun(RunError):
    """The process of the run died, or was interrupted, before it finished."""


class CancelledRun(RunError):
    """The run was cancelled."""


class RunTimedOut(RunError, TimeoutError):
    """The run took longer than its ``timeout_seconds``.

    Attributes:
        run_id: of the run.
    """

    def __init__(self, message: str, run_id: UUID | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class ParameterBindError(OrchestratorError, TypeError):
    """The arguments do not fit the signature of the function."""


class ParameterTypeError(OrchestratorError, TypeError):
    """An argument is not, and cannot be turned into, what the signature declares."""


class MappingError(OrchestratorError, ValueError):
    """``.map`` was called with arguments it cannot spread."""


class MappingLengthMismatch(MappingError):
    """The iterables given to ``.map`` have different lengths."""


class MappingMissingIterable(MappingError):
    """None of the arguments given to ``.map`` is iterable."""


class ConcurrencySlotAcquisitionError(OrchestratorError):
    """Slots of a concurrency limit that cannot be had, however long one waits."""


class AcquireConcurrencySlotTimeoutError(OrchestratorError, TimeoutError):
    """Slots of a concurrency limit were not free in time."""


class ConcurrencyLeaseLost(OrchestratorError):
    """Slots that were held went to somebody else, since this host was not heard of in time."""


class LimitNotFound(OrchestratorError, LookupError):
    """No concurrency limit has this name."""


class ValueNotStorable(OrchestratorError, TypeError):
    """A value would not come back equal and of its type, so it is not stored at all."""


class ProcessPoolError(OrchestratorError, RuntimeError):
    """A process of a pool could not be started, or cannot do what it was asked."""


class ValueNotPicklable(OrchestratorError, TypeError):
    """An argument or a result that cannot go to another process, or come from one."""

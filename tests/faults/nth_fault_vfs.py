"""A VFS whose Nth call fails, and a sweep that makes each call of a script fail in turn.

The method is SQLite's own (sqlite.org/testing.html, sections 3.1 to 3.3): run a script once to
count the calls, then again for every one of them with that call failing, once or from then on, and
look each time at what is left.

- ``FaultyVFS`` does what the default VFS does until the armed call comes. A ``FaultKind`` says
  which calls count and what they answer. A failed write leaves nothing behind, a failed sync has
  synced nothing, and both are told to SQLite as the error code that the kind names.
- A ``Subject`` is what is put to the test: ``script`` runs operations through the faulty VFS and
  writes the fate of each into a ``Fates``; ``held`` and ``goes_on`` look at the file afterwards as
  a new process would, without faults. One on bare apsw stands in ``test_nth_fault``, and one on the
  orchestrator in ``test_nth_fault_of_runs``.
- ``sweep`` tries the positions and collects ``Trial`` records, of which ``violations`` tells what
  must never be.

What must hold after each fault: the file is sound; every acknowledged operation is there, every
one that failed before its COMMIT is not, and one whose COMMIT raised is there wholly or not at all;
a new connection can read and write.

About a COMMIT that raised two things are counted, because the caller has to cope with them:

- *raised but durable*: the error says no and the file says yes. Such an operation must be looked up
  by its id and never simply be run again.
- *came back*: looked up at once on the same connection it was not there, and after the file was
  opened anew it is. A sync that fails leaves a complete, valid commit in the WAL that only the WAL
  index in memory does not count; if nothing is written over it, recovery finds it.

Limits: a call either does all or fails; partial writes are in ``power_cuts``. The locks and memory
of the WAL index never come by a Python VFS, so faults there are not tried, and neither are those of
memory allocation inside SQLite (``nomem`` is a VFS call that answers so). A real disk may also fail
a sync once, drop the pages and answer the next sync with success; here the pages stay.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Protocol

import apsw
import msgspec

_WRITES = frozenset({"xWrite", "xTruncate"})


class FaultKind(Enum):
    """What goes wrong: the code that SQLite gets, and the calls that may answer with it."""

    FULL = (apsw.SQLITE_FULL, _WRITES)
    WRITE = (apsw.SQLITE_IOERR_WRITE, _WRITES)
    FSYNC = (apsw.SQLITE_IOERR_FSYNC, frozenset({"xSync"}))
    READ = (apsw.SQLITE_IOERR_READ, frozenset({"xRead"}))
    # The locks of the WAL index are out of reach of a Python VFS. A network file system may answer
    # so to a change as well; not to reads here, because in WAL recovery SQLite takes that for
    # another process at work and tries again for ten seconds.
    BUSY = (apsw.SQLITE_BUSY, _WRITES | {"xSync", "xLock"})
    NOMEM = (apsw.SQLITE_NOMEM, _WRITES | {"xRead", "xSync", "xFileSize", "xLock", "xOpen"})
    CANTOPEN = (apsw.SQLITE_CANTOPEN, frozenset({"xOpen"}))

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def calls(self) -> frozenset[str]:
        return self.value[1]


class Fault(msgspec.Struct, frozen=True):
    """The ``nth`` call (from 1) of a kind fails, and with ``sticky`` all after it."""

    kind: FaultKind
    nth: int
    sticky: bool

    def __str__(self) -> str:
        return f"{self.kind.name} at {self.nth}{' and from then on' if self.sticky else ''}"


def _calls_of(kind: FaultKind, named: Counter[str]) -> int:
    return sum(named[call] for call in kind.calls)


class FaultyVFS(apsw.VFS):
    """The default VFS with one fault in it. Safe for threads; unregistered by its maker.

    Syncs are counted and may fail, but are not passed on: nobody cuts the power here.
    """

    def __init__(self, name: str, fault: Fault) -> None:
        self.fault = fault
        self.named: Counter[str] = Counter()
        self.armed = True
        self.raised: list[BaseException] = []
        self.first_failed: str | None = None
        self._lock = threading.Lock()
        super().__init__(name, "")

    @property
    def calls(self) -> int:
        """How many calls of the kind there were that is to fail."""
        return _calls_of(self.fault.kind, self.named)

    def pass_or_fail(self, call: str) -> None:
        """Count a call, and raise if it is the one.

        Raises:
            apsw.Error: the exception for the fault's code.
        """
        with self._lock:
            if not self.armed:
                return
            self.named[call] += 1
            if call not in self.fault.kind.calls:
                return
            late = self.calls - self.fault.nth
        if late == 0 or (late > 0 and self.fault.sticky):
            error = apsw.exception_for(self.fault.kind.code)
            self.raised.append(error)
            self.first_failed = self.first_failed or call
            raise error

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        self.pass_or_fail("xOpen")
        return FaultyFile(self, name, flags)


class FaultyFile(apsw.VFSFile):
    """One open handle that asks its VFS before each call."""

    def __init__(
        self, vfs: FaultyVFS, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs

    def xRead(self, amount: int, offset: int) -> bytes:
        self._vfs.pass_or_fail("xRead")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.pass_or_fail("xWrite")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._vfs.pass_or_fail("xTruncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._vfs.pass_or_fail("xSync")

    def xFileSize(self) -> int:
        self._vfs.pass_or_fail("xFileSize")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._vfs.pass_or_fail("xLock")
        super().xLock(level)


class Fates:
    """What the caller of each operation was told. ``script`` fills it in."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        """The commit returned."""
        self.refused: set[int] = set()
        """An error before COMMIT was sent: it cannot have happened."""
        self.unknown: dict[int, bool | None] = {}
        """COMMIT raised. Looked up at once it was there, was not, or could not be asked."""
        self.problems: list[str] = []
        """What else the caller saw and should not have."""


class Subject(Protocol):
    """What the sweep puts to the test, one file at a time."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        """Run the operations on a new file through this VFS. No fault may escape."""
        ...

    def held(self, path: str) -> frozenset[int]:
        """What a new process finds. Raises TornOperation, or apsw.Error on damage."""
        ...

    def goes_on(self, path: str) -> bool:
        """Whether a new process can do one more operation and find it again."""
        ...


class Trial(msgspec.Struct, frozen=True):
    """What one fault did."""

    fault: Fault
    failed_call: str | None
    violations: tuple[str, ...]
    raised_but_durable: frozenset[int]
    came_back: frozenset[int]
    unknown: int
    named: Counter[str]

    @property
    def calls(self) -> int:
        """How many calls of the fault's kind there were."""
        return _calls_of(self.fault.kind, self.named)


def attempt(subject: Subject, fault: Fault, folder: str) -> Trial:
    """Run the script once with this fault in a fresh folder, and look at what is left."""
    fresh = tempfile.mkdtemp(dir=folder)
    path = os.path.join(fresh, "faulty.db")
    name = f"faulty-{fresh}"
    vfs = FaultyVFS(name, fault)
    fates = Fates()
    held: frozenset[int] = frozenset()
    violations: list[str] = []
    try:
        with ours_unreported(vfs):
            subject.script(path, name, fates)
        vfs.armed = False
        try:
            held = subject.held(path)
            violations += _violations(fates, held)
            if not subject.goes_on(path):
                violations.append("no operation was possible afterwards")
        except Exception as error:
            violations.append(f"{type(error).__name__}: {error}")
    finally:
        vfs.unregister()
        shutil.rmtree(fresh)
    return Trial(
        fault=fault,
        failed_call=vfs.first_failed,
        violations=tuple(violations),
        raised_but_durable=frozenset(fates.unknown) & held,
        came_back=frozenset(n for n in held if fates.unknown.get(n, True) is False),
        unknown=len(fates.unknown),
        named=vfs.named,
    )


@contextmanager
def ours_unreported(vfs: FaultyVFS) -> Generator[None]:
    """Keep quiet about our own errors where SQLite does not want to know them.

    In a rollback it goes on whatever a call answers. apsw then hands the exception, which has
    nowhere else to go, to ``sys.unraisablehook``, where pytest would make a failure of it.
    """
    report = sys.unraisablehook

    def report_others(unraisable: sys.UnraisableHookArgs) -> None:
        if not any(unraisable.exc_value is error for error in vfs.raised):
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


def _violations(fates: Fates, held: frozenset[int]) -> list[str]:
    found = list(fates.problems)
    seen_then_gone = {n for n, there in fates.unknown.items() if there} - held
    for numbers, what in (
        (fates.acknowledged - held, "acknowledged and lost"),
        (fates.refused & held, "refused before COMMIT and yet there"),
        (held - fates.acknowledged - fates.refused - set(fates.unknown), "never asked for"),
        (seen_then_gone, "found right after its COMMIT raised, and then gone"),
    ):
        if numbers:
            found.append(f"{what}: {sorted(numbers)}")
    return found


class Sweep(msgspec.Struct):
    """The trials of many positions."""

    trials: list[Trial]

    @property
    def violations(self) -> list[str]:
        """What must never be, each with the fault that brings it about again."""
        return [f"{t.fault}: {what}" for t in self.trials for what in t.violations]

    @property
    def raised_but_durable(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.raised_but_durable]

    @property
    def came_back(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.came_back]

    def __str__(self) -> str:
        counts = (
            f"{len(self.trials)} faults, {len(self.violations)} violations;"
            f" {sum(1 for t in self.trials if t.unknown)} runs in which a COMMIT raised,"
            f" {len(self.raised_but_durable)} of them durable all the same,"
            f" {len(self.came_back)} after a look-up that did not find it"
        )
        return "\n".join([counts, *self.violations[:5]])


def sweep(
    subject: Subject, *, kinds: Iterable[FaultKind], folder: str, at_most: int | None = None
) -> Sweep:
    """Make each call of each kind fail, once and from then on.

    Args:
        subject: what is tested.
        kinds: the faults to try.
        folder: where the files are made; each trial cleans up after itself.
        at_most: positions per kind and way, evenly spread; None for all.
    """
    trials: list[Trial] = []
    counts = count_calls(subject, folder)
    for kind in kinds:
        for sticky in (False, True):
            trials += [
                attempt(subject, Fault(kind, nth, sticky), folder)
                for nth in _positions(counts[kind], at_most)
            ]
    return Sweep(trials)


def count_calls(subject: Subject, folder: str) -> dict[FaultKind, int]:
    """How many calls of each kind the script makes, and that all is well while none fails."""
    never = Fault(FaultKind.WRITE, nth=1 << 62, sticky=False)
    trial = attempt(subject, never, folder)
    if trial.violations or trial.unknown:
        raise AssertionError(f"the script fails without a fault: {trial}")
    return {kind: _calls_of(kind, trial.named) for kind in FaultKind}


def _positions(count: int, at_most: int | None) -> Iterator[int]:
    """Positions from 1 to ``count``: the first, the last and an even choice between them."""
    if at_most is None or count <= at_most:
        yield from range(1, count + 1)
        return
    for step in range(at_most):
        yield 1 + step * (count - 1) // (at_most - 1)

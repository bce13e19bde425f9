"""What a process is to its databases: its clock, its ids, its sleep and its facts.

Nothing else in the package asks the operating system for the time, for randomness or for who it
is, so that a test can put several processes, each with a clock of its own, into one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, SafeUUID

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION_AND_VARIANT = (7 << 76) | (0b10 << 62)
# The last two bits are 0: ids that follow another one have them.
_TAIL = (1 << 62) - 4
# The tails of so many ids are drawn at once: a call of the operating system costs more than an id.
_TAILS = Struct("256Q")
_new = object.__new__
_set_int = UUID.__dict__["int"].__set__
_set_safety = UUID.__dict__["is_safe"].__set__
_NOT_KNOWN = SafeUUID.unknown
_MACHINE_DIGITS = 12


def uuid_of(number: int) -> UUID:
    """The id that is a number below 1 << 128.

    Made past the checks of its class, which cost twice as much as all the rest.
    """
    made = _new(UUID)
    _set_int(made, number)
    _set_safety(made, _NOT_KNOWN)
    return made


def id_after(id: UUID, place: int) -> UUID:
    """The id of something that is made together with another: of nothing else, and right after it.

    Args:
        id: of the other; made by :meth:`Process.new_id`.
        place: which of the up to three that follow it, from 1.
    """
    return uuid_of(id.int | place)


def random_bits(id: UUID, count: int) -> int:
    """Bits of an id that are as random as any; the last two are not.

    Args:
        id: made by :meth:`Process.new_id`.
        count: how many bits, up to 60.
    """
    return id.int >> 2 & (1 << count) - 1


class ProcessFacts(NamedTuple):
    """What tells one process from all others, for people and for other hosts.

    Attributes:
        host: the name of the host, with the beginning of its machine id where it has one: two hosts
            may have one name.
        boot_id: changes with every boot of the kernel; None where there is none.
        pid: the process id in the process's own namespace.
        start_ticks: when the process started, in clock ticks after boot; with the boot id and the
            pid it names the process. None where that is not known.
    """

    host: str
    boot_id: str | None
    pid: int
    start_ticks: int | None


def process_facts(*, proc: str = "/proc") -> ProcessFacts:
    """The facts of this process, read anew: they differ in a forked child.

    Args:
        proc: where procfs is mounted.
    """
    boot_id = _read_text(f"{proc}/sys/kernel/random/boot_id")
    return ProcessFacts(
        host=_host(),
        boot_id=boot_id.strip() if boot_id else None,
        pid=os.getpid(),
        start_ticks=start_ticks_of("self", proc=proc),
    )


def start_ticks_of(pid: int | str, *, proc: str = "/proc") -> int | None:
    """When a process of this namespace started, in clock ticks after boot; None if not known.

    Field 22 of proc_pid_stat(5).

    Args:
        pid: of the process.
        proc: where procfs is mounted.
    """
    stat = _read_text(f"{proc}/{pid}/stat")
    if not stat:
        return None
    # The second field is the command in brackets, and a command may contain brackets and blanks:
    # count from behind its last one. The first field after it is the third.
    fields = stat.rpartition(")")[2].split()
    try:
        return int(fields[22 - 3])
    except (IndexError, ValueError):
        return None


def _host() -> str:
    name = os.environ.get("COMPUTERNAME", "") if sys.platform == "win32" else os.uname().nodename
    machine = _read_text("/etc/machine-id")
    return f"{name}/{machine[:_MACHINE_DIGITS]}" if machine else name


def _read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        # Not on this system; the caller records that it is not known.
        return None


class Process:
    """One process as its databases see it. Safe to use from any thread.

    Args:
        clock: microseconds since 1970-01-01 UTC.
        entropy: ``entropy(n)`` gives n random bytes.
        sleep: waits for a number of seconds. Of a clock that does not go by itself it has a method
            ``doze(bell, seconds)`` too, which returns when the bell rings or they have gone by.
        facts: what tells the process from others, as another host or boot would have it; its own
            when not given.

    Attributes:
        now: the time, in microseconds since 1970-01-01 UTC.
        sleep: waits for a number of seconds.
        facts: what tells it from all others.
        pid: of the process.
    """

    __slots__ = ("_entropy", "_last_stamp", "_lock", "_tails", "facts", "now", "pid", "sleep")

    def __init__(
        self,
        *,
        clock: Callable[[], int] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        sleep: Callable[[float], None] = time.sleep,
        facts: Callable[[], ProcessFacts] = process_facts,
    ) -> None:
        self.now: Callable[[], int] = clock or _system_clock
        self.facts = facts
        self._entropy = entropy
        self.sleep = sleep
        self.begin_in_child()

    def begin_in_child(self) -> None:
        """Begin anew in a forked child: as another process."""
        self._lock = threading.Lock()
        self._last_stamp = 0
        # Not those of the parent, which it goes on to use.
        self._tails: list[int] = []
        self.pid = os.getpid()

    def new_id(self) -> UUID:
        """A UUIDv7 (RFC 9562) greater than every one made before it by this object.

        The 12 bits after the milliseconds count 244 ns steps (RFC 9562 section 6.2, method 3), so
        ids sort by the time at which they were made; two made in one step, or after the clock was
        set back, go on from the last. The three after it are kept for :func:`id_after`.
        """
        try:
            tail = self._tails.pop()
        except IndexError:
            tail = self._draw_tails()
        # Milliseconds << 12, and 4096 parts of one below it.
        stamp = self.now() * 512 // 125
        with self._lock:
            if stamp <= self._last_stamp:
                stamp = self._last_stamp + 1
            self._last_stamp = stamp
        return uuid_of((stamp >> 12) << 80 | (stamp & 0xFFF) << 64 | tail)

    def _draw_tails(self) -> int:
        # Not under the lock: Python goes on in another thread meanwhile, and all that need an id
        # would stand in line for it.
        found: tuple[int, ...] = _TAILS.unpack(self._entropy(_TAILS.size))
        self._tails.extend([_VERSION_AND_VARIANT | (tail & _TAIL) for tail in found[1:]])
        return _VERSION_AND_VARIANT | (found[0] & _TAIL)

    def random_bytes(self, count: int) -> bytes:
        """``count`` random bytes."""
        return self._entropy(count)

    def chance(self) -> float:
        """A random number from 0 up to 1."""
        return (int.from_bytes(self._entropy(7), "big") >> 3) / (1 << 53)

    def __repr__(self) -> str:
        return f"<Process pid={self.pid}>"


def _system_clock() -> int:
    return time.time_ns() // 1000


OWN = Process()
"""This process with its real clock: what makes what nobody gave a clock or an id."""

if hasattr(os, "register_at_fork"):
    # The parent's lock may have been held by a thread that the child does not have.
    os.register_at_fork(after_in_child=OWN.begin_in_child)

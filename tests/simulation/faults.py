"""What can happen to a virtual machine, as a table: how likely it is in a step, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.virtual_process import VirtualProcess

SECOND = 1_000_000
HOUR = 3600 * SECOND
LEASE = 60 * SECOND
"""A process that is stopped for longer looks dead to the others, as if they were other hosts."""


class Fault(NamedTuple):
    """One kind of fault.

    Attributes:
        chance: of it, with each step, in a machine that has it at all.
        strike: does it to a process that lives.
    """

    chance: float
    strike: Callable[[Machine, VirtualProcess], None]


def _kill(machine: Machine, process: VirtualProcess) -> None:
    machine.kill(process)


def _kill_at_a_statement(machine: Machine, process: VirtualProcess) -> None:
    if process.fuse is None:
        process.fuse = machine.chance.randrange(30)


def _kill_after_a_commit(machine: Machine, process: VirtualProcess) -> None:
    process.dies_after_commit = True


def _stop(machine: Machine, process: VirtualProcess) -> None:
    if process.stopped_since is None:
        process.stopped_since = machine.time
        process.stopped_until = machine.time + machine.chance.randrange(SECOND, 4 * LEASE)


def _jump(machine: Machine, process: VirtualProcess) -> None:
    hours = machine.chance.choice((-5, -1, 1, 9))
    # One host: all its processes see the same clock.
    for each in machine.processes:
        each.offset += hours * HOUR
    machine.offset += hours * HOUR


def _jump_alone(machine: Machine, process: VirtualProcess) -> None:
    # A process on another host, whose clock is not that of the others.
    process.offset += machine.chance.randrange(-90 * SECOND, 90 * SECOND)


def _busy(machine: Machine, process: VirtualProcess) -> None:
    process.is_busy = True


def _locked(machine: Machine, process: VirtualProcess) -> None:
    # Whatever is committed next, of which some or all may be announced and waited for by nobody.
    process.is_locked_out = True


def _slow(machine: Machine, process: VirtualProcess) -> None:
    # What is done next is committed at once, and its caller hears of it much later.
    machine.slowness = machine.chance.randrange(SECOND, 2 * LEASE)


def _lose_a_ring(machine: Machine, process: VirtualProcess) -> None:
    for thread in process.threads:
        if thread.wait is not None and thread.wait.is_losable:
            thread.wait.is_deaf = True


def _take_by_force(machine: Machine, process: VirtualProcess) -> None:
    # Somebody who does not want to wait for a process that may be at work all the same.
    if process.stopped_since is None:
        machine.take_by_force(process)


FAULTS: dict[str, Fault] = {
    "kill": Fault(0.006, _kill),
    "kill at a statement": Fault(0.008, _kill_at_a_statement),
    "kill after a commit": Fault(0.006, _kill_after_a_commit),
    "stop": Fault(0.008, _stop),
    "clock jump": Fault(0.006, _jump),
    "clock of one process": Fault(0.006, _jump_alone),
    "busy": Fault(0.006, _busy),
    "locked": Fault(0.01, _locked),
    "slow commit": Fault(0.01, _slow),
    "taken by force": Fault(0.006, _take_by_force),
    "lost wake-up": Fault(0.02, _lose_a_ring),
}

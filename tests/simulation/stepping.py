"""The engine's effects, performed by a virtual machine instead of an event loop.

The engine says by effects where it would wait. ``stepping`` has each effect stop its thread in the
place of awaiting something of an event loop, and has everything that would be a thread of the
package (that of the writer, of the log, of the watch) stand still: the machine does their turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from embedded_orch.db.flusher import Flusher
from embedded_orch.db.sqlite import opening
from embedded_orch.engine import (
    cancellation,
    connection,
    effects,
    futures,
    inputs,
    ownership,
    recovering,
    results,
    run_logging,
    telling,
    watching,
)
from embedded_orch.engine import runner as runners
from embedded_orch.engine import running as calls
from embedded_orch.engine.transactions import Ask
from embedded_orch.engine.upkeep import Upkeep
from embedded_orch.engine.watching import Watch
from tests.simulation.threads import Cancelled, Wait

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

_running: list[Machine] = []


def machine() -> Machine:
    """The machine that runs now."""
    return _running[-1]


async def _write(self: Any) -> Any:
    return await Wait("write", lambda: effects.Write.perform(self), is_shielded=True)


async def _read(self: Any) -> Any:
    return await Wait("read", self.perform)


async def _ask(self: Any) -> Any:
    return await Wait("ask", self.perform)


async def _shielded(self: Any) -> Any:
    return await self._effect.perform_async()


async def _sleep(self: Any) -> None:
    await Wait("sleep", seconds=self._seconds)


async def _turn(self: Any) -> bool:
    rings: list[bool] = []
    if self._waiter._listen(lambda: rings.append(True)):
        is_losable = self._seconds is not None
        await Wait("turn", ready=lambda: bool(rings), seconds=self._seconds, is_losable=is_losable)
    return bool(self._waiter._take_ring())


async def _wait_for_future(self: Any) -> None:
    await Wait("future", ready=lambda: self.is_done)


async def _wait_for(self: Any) -> None:
    await self._future.wait_async()


async def _stop(self: Any) -> None:
    context = self._flow_run
    if not context.has_runner:
        return
    if self._is_interrupting:
        context.runner.interrupt()
    context.runner.cancel()
    await Wait("stop", ready=lambda: not machine().has_threads_of(context.runner), is_shielded=True)


async def _cancellable(self: Any) -> Any:
    cancelled = self._context.cancellation
    thread, scope = machine().thread, object()
    try:
        cancelled.begin(self._context, lambda: thread.cancel(scope))
        value = await self._call.perform_async()
        for future in inputs.futures_in(value):
            await future.wait_async()
        return value
    except Cancelled as error:
        if error.scope is not scope:
            raise
        raise self._error() from None
    finally:
        cancelled.end()


def _submit_async(self: Any, run: Any, *, backend: str) -> None:
    self._check()
    machine().spawn_submitted(self, run)


def _interrupt(self: Any) -> None:
    self.cancel()
    self._is_interrupted = True
    machine().cancel_threads_of(self)


async def _as_performed(self: Any) -> Any:
    return self.perform()


def _no_thread(self: Any) -> None:
    """The machine does its turns."""


def _looked_at(*args: Any) -> None:
    """The file of a machine is ours, and lies where its template did."""


def _encode_without_frames(error: BaseException) -> bytes:
    """What is kept of an error, but for its traceback, which costs more than all else of it."""
    of = type(error)
    text = {"type": f"{of.__module__}:{of.__qualname__}", "message": str(error), "traceback": ""}
    return msgspec.json.encode(text)


def _show_nowhere(at: int, level: int, label: str, message: str) -> None:
    """What runs log is kept in the database, where it is looked for; nobody reads a terminal."""


def _no_pause(self: Any, steps: Any, most: int) -> bool:
    return all(number < most for number, _ in enumerate(steps, 1))


@contextmanager
def stepping(running: Machine) -> Iterator[None]:
    """A block in which the engine is driven by a machine."""
    original = ownership.Owner.life_of

    def life_of(self: Any, other: Any) -> ownership.Life:
        is_dead = other.id != self.id and running.looks_dead(other.id)
        return ownership.Life.DEAD if is_dead else original(self, other)

    with pytest.MonkeyPatch.context() as patches:
        for effect, perform in {
            effects.Write: _write,
            effects.Read: _read,
            effects.Shielded: _shielded,
            effects.Sleep: _sleep,
            effects.Turn: _turn,
            effects.WaitFor: _wait_for,
            effects.Stop: _stop,
            cancellation.Cancellable: _cancellable,
            connection.Undo: _as_performed,
            Ask: _ask,
        }.items():
            patches.setattr(effect, "perform_async", perform)
        # No loop runs in which calls could take turns.
        patches.setattr(calls, "_drive_async", lambda: (effects.drive_async, lambda: None))
        patches.setattr(futures.Future, "wait_async", _wait_for_future)
        patches.setattr(runners.Runner, "submit_async", _submit_async)
        patches.setattr(runners.Runner, "interrupt", _interrupt)
        patches.setattr(Flusher, "_start", _no_thread)
        patches.setattr(Watch, "_start", _no_thread)
        patches.setattr(Upkeep, "after_flow_run", _no_thread)
        patches.setattr(Upkeep, "_go_through", _no_pause)
        patches.setattr(ownership.Owner, "life_of", life_of)
        for shown in (run_logging, telling):
            patches.setattr(shown, "show", _show_nowhere)
        patches.setattr(results, "_encode_error", _encode_without_frames)
        for look in ("refuse_foreign_file", "refuse_network_filesystem"):
            patches.setattr(opening, look, _looked_at)
        # Or a machine would do something else when the real one is slow.
        for clocked in (recovering, watching):
            patches.setattr(clocked, "monotonic", running.monotonic)
        _running.append(running)
        try:
            yield
        finally:
            _running.pop()

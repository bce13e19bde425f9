"""What kind of function is called, and in what kind of loop."""

from __future__ import annotations

import sys
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from embedded_orch.errors import Pause, SignatureError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from embedded_orch.engine.effects import Steps
    from embedded_orch.states import State

R = TypeVar("R")

_COROUTINE = 0x80
_GENERATOR = 0x20
_ASYNC_GENERATOR = 0x200


def unwrapped(function: Any) -> tuple[Any, type | None]:
    """A function, and what it was wrapped in as a member of a class: classmethod, staticmethod."""
    if isinstance(function, classmethod | staticmethod):
        return function.__func__, type(function)
    return function, None


def is_async_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine or an asynchronous generator.

    Raises:
        SignatureError: it is no function.
    """
    if not callable(function):
        raise SignatureError(f"{function!r} cannot be called, so it cannot be a flow or a task")
    return bool(_flags_of(function) & (_COROUTINE | _ASYNC_GENERATOR))


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, plain or asynchronous."""
    return bool(_flags_of(function) & (_GENERATOR | _ASYNC_GENERATOR))


def _flags_of(function: Any) -> int:
    """The flags of the code that runs when it is called: a function, a partial, an object."""
    while hasattr(function, "func"):
        function = function.func
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - its code is looked at
    code = getattr(function, "__code__", None)
    return code.co_flags if code is not None else 0


def copied_context(backend: str | None) -> Context:
    """The context of the caller, for use in another thread.

    anyio notes in the context which loop runs, and would believe that in the other thread.

    Args:
        backend: of the loop that runs there; None for none.
    """
    context = copy_context()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, backend)
    return context


def begun(
    steps: Steps[State[Any]], *, is_async: bool, is_generator: bool, return_state: bool
) -> Any:
    """What a call gives its caller: what its function returned, or else raised; or its state.

    Args:
        steps: of the call.
        is_async: whether it is awaited, or iterated over asynchronously.
        is_generator: whether its items are given one by one.
        return_state: whether the final state is given, and nothing else.
    """
    if is_generator and not return_state:
        from embedded_orch.engine.generators import items_of, items_of_async

        return items_of_async(steps) if is_async else items_of(steps)
    if is_async:
        return _ending_of_async(steps, return_state)
    try:
        state = _drive()(steps)
    except Pause as signal:
        if return_state and signal.state is not None:
            return signal.state
        raise
    return state if return_state else state.result_now()


@cache
def _drive() -> Callable[[Steps[State[Any]]], State[Any]]:
    """What the first call imports, and the others find: an import statement looks each time."""
    from embedded_orch.engine.effects import drive

    return drive


@cache
def _drive_async() -> tuple[
    Callable[[Steps[State[Any]]], Awaitable[State[Any]]], Callable[[], Awaitable[object] | None]
]:
    from embedded_orch.db.handoff import turn_to_begin
    from embedded_orch.engine.effects import drive_async

    return drive_async, turn_to_begin


async def _ending_of_async(steps: Steps[State[Any]], return_state: bool) -> Any:
    drive_async, turn_to_begin = _drive_async()
    turn = turn_to_begin()
    if turn is not None:
        await turn
    # Or this frame would keep it until the call ends.
    del turn
    try:
        state = await drive_async(steps)
    except Pause as signal:
        if return_state and signal.state is not None:
            return signal.state
        raise
    return state if return_state else await state.aresult()


def run_to_end(awaitable: Awaitable[R]) -> R:
    """What an awaitable gives, awaited by plain code: on an asyncio loop of its own."""
    import asyncio

    async def awaited() -> R:
        return await awaitable

    context = copied_context("asyncio")
    if not is_loop_running():
        return context.run(asyncio.run, awaited())
    # A loop cannot run inside of another one.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(context.run, asyncio.run, awaited()).result()


def backend_of_running_loop() -> str:
    """The anyio backend of the loop that runs here; asyncio when none does."""
    return "trio" if _is_trio_running() else "asyncio"


def is_loop_running() -> bool:
    """Whether an event loop runs in this thread, asyncio's or trio's."""
    if _is_trio_running():
        return True
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        # asyncio is imported, and does not run here.
        return False


def _is_trio_running() -> bool:
    trio = sys.modules.get("trio")
    try:
        return trio is not None and trio.lowlevel.current_task() is not None
    except RuntimeError:
        # trio is imported, and does not run here.
        return False

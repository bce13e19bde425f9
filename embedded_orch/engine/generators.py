"""Generator functions as flows and tasks: each item goes through to who iterates over the call.

The engine's steps run the user's generator one item at a time (:func:`iterate`) and yield each item
as an effect. Who only drives them, for a submitted task or for a final state, drops the items: the
list of all is the result. The generators below hand them on, together with what is sent and thrown
in return, and close the user's generator when they are closed.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import go_to, place_here
from embedded_orch.engine.effects import ending_of_steps, have_ended
from embedded_orch.engine.workers import interruptible_here

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from embedded_orch.engine.effects import Effect, Steps
    from embedded_orch.engine.timeouts import Allowance
    from embedded_orch.states import State

_CLOSED = "its generator was closed early, so there is no whole result to keep"
_RETURNED = "its generator returned a value besides its items, so they are not kept"


class Ended:
    """The user's generator has none left; ``value`` is what it returned."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Closing(BaseException):
    """Whoever takes the items wants no more."""


class Item:
    """An item for whoever iterates over the call."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def perform(self) -> None:
        """Nobody iterates: the item is one of the result."""

    async def perform_async(self) -> None:
        """The same."""


class Advance:
    """The next item of the user's generator, or how it ended."""

    __slots__ = ("_allowance", "_generator", "_sent", "_thrown")

    def __init__(
        self,
        generator: Any,
        allowance: Allowance | None,
        *,
        sent: object = None,
        thrown: BaseException | None = None,
    ) -> None:
        self._generator = generator
        self._allowance = allowance
        self._sent = sent
        self._thrown = thrown

    def perform(self) -> Any:
        """Do it in this thread."""
        if self._allowance is None:
            with interruptible_here():
                return self._advance()
        self._throw_if_late(self._allowance)
        return self._allowance.perform(self._advance)

    def _advance(self) -> Any:
        try:
            if self._thrown is not None:
                return self._generator.throw(self._thrown)
            return self._generator.send(self._sent)
        except StopIteration as end:
            return Ended(end.value)

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        if self._allowance is None:
            return await self._advance_async()
        self._throw_if_late(self._allowance)
        return await self._allowance.perform_async(self._advance_async)

    async def _advance_async(self) -> Any:
        try:
            if self._thrown is not None:
                return await self._generator.athrow(self._thrown)
            return await self._generator.asend(self._sent)
        except StopAsyncIteration:
            return Ended(None)

    def _throw_if_late(self, allowance: Allowance) -> None:
        # The time of who takes the items counts too, as it does in Prefect.
        if monotonic() >= allowance.deadline:
            self._thrown = allowance.error()


class Close:
    """The end of the user's generator, before its last item."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def perform(self) -> None:
        """Do it in this thread."""
        self._generator.close()

    async def perform_async(self) -> None:
        """Do it without blocking the event loop."""
        await self._generator.aclose()


def iterate(
    generator: Any, allowance: Allowance | None, wrapped: Callable[[Effect], Effect]
) -> Steps[tuple[list[Any], str | None]]:
    """Run the user's generator to its end.

    Args:
        generator: not begun yet.
        allowance: the time that it has.
        wrapped: what an effect becomes that runs its code.

    Returns:
        Its items, and why they are not to be kept as the result, if so.
    """
    items: list[Any] = []
    advance = Advance(generator, allowance)
    while True:
        try:
            answer = yield wrapped(advance)
        except GeneratorExit:
            raise
        except BaseException:
            # It has raised; or it was interrupted before it went on, and waits for its end.
            yield Close(generator)
            raise
        if isinstance(answer, Ended):
            return items, None if answer.value is None else _RETURNED
        items.append(answer)
        try:
            sent = yield Item(answer)
        except Closing:
            yield Close(generator)
            return items, _CLOSED
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - thrown in by who iterates, or Ctrl-C
            advance = Advance(generator, allowance, thrown=error)
        else:
            advance = Advance(generator, allowance, sent=sent)


class _Passing:
    """The steps of a call between two items, for a driver that hands the items on.

    Attributes:
        state: the final one, once there is one.
        returned: what the user's generator returned.
        has_begun: whether it was run at all, and is not only told from its record.
    """

    def __init__(self, steps: Steps[State]) -> None:
        self._steps = steps
        self._resume: Callable[[Any], Effect] = steps.send
        self._value: Any = None
        self._inside = place_here()
        self._outside = self._inside
        self.is_closing = False
        self.state: State | None = None
        self.returned: object = None
        self.has_begun = False

    def enter(self) -> None:
        """The code that runs next is that of the call."""
        self._outside = place_here()
        go_to(self._inside)

    def leave(self) -> None:
        """The code that runs next is that of who iterates."""
        self._inside = place_here()
        go_to(self._outside)

    def next_effect(self) -> Effect:
        """What to perform, or the next item to hand on."""
        effect = self._resume(self._value)
        if type(effect) is Item:
            self.has_begun = True
        return effect

    def take(self, answer: Any) -> None:
        """What came of the effect, or was sent for the item."""
        if type(answer) is Ended:
            self.has_begun = True
            self.returned = answer.value
        self._resume, self._value = self._steps.send, answer

    def throw(self, error: BaseException) -> None:
        """What the effect raised, or was thrown in for the item; the end, if the steps ended."""
        if have_ended(self._steps):
            self.state = ending_of_steps(error)
        else:
            self._resume, self._value = self._steps.throw, error

    def close(self) -> None:
        """No more items are wanted."""
        self.is_closing = True
        self._resume, self._value = self._steps.throw, Closing()

    @property
    def recorded(self) -> list[Any]:
        """Items that were not made now but are on record."""
        assert self.state is not None, "asked at the end"
        if self.has_begun or self.is_closing or not self.state.is_completed():
            return []
        found: list[Any] = self.state.result_now()
        return found

    def finish(self) -> object:
        """What the generator returns; raises what the run failed with."""
        assert self.state is not None, "asked at the end"
        if not self.state.is_completed():
            self.state.result_now()
        return self.returned


def items_of(steps: Steps[State]) -> Generator[Any, Any, Any]:
    """The items of a call, as a plain generator yields them."""
    passing = _Passing(steps)
    while passing.state is None:
        passing.enter()
        try:
            effect = passing.next_effect()
            while type(effect) is not Item:
                passing.take(effect.perform())
                effect = passing.next_effect()
        except BaseException as error:  # noqa: BLE001 - thrown into the steps that wait
            passing.throw(error)
            continue
        finally:
            passing.leave()
        if passing.is_closing:
            # A retry has begun meanwhile.
            passing.close()
            continue
        try:
            passing.take((yield effect.value))
        except GeneratorExit:
            passing.close()
        except BaseException as error:  # noqa: BLE001 - the user's generator gets it
            passing.throw(error)
    yield from passing.recorded
    return passing.finish()


async def items_of_async(steps: Steps[State]) -> AsyncGenerator[Any, Any]:
    """The items of a call, as an asynchronous generator yields them."""
    passing = _Passing(steps)
    while passing.state is None:
        passing.enter()
        try:
            effect = passing.next_effect()
            while type(effect) is not Item:
                passing.take(await effect.perform_async())
                effect = passing.next_effect()
        except BaseException as error:  # noqa: BLE001 - thrown into the steps that wait
            passing.throw(error)
            continue
        finally:
            passing.leave()
        if passing.is_closing:
            passing.close()
            continue
        try:
            passing.take((yield effect.value))
        except GeneratorExit:
            passing.close()
        except BaseException as error:  # noqa: BLE001 - the user's generator gets it
            passing.throw(error)
    for item in passing.recorded:
        yield item
    passing.finish()

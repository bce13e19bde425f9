"""Receiving the inputs that are sent to a flow run, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from embedded_orch.engine.effects import drive, drive_async
from embedded_orch.engine.exchange import receive_next, value_of
from embedded_orch.engine.pausing import with_metadata as note_metadata
from embedded_orch.engine.run_inputs import WantedInput
from embedded_orch.input.actions import performed, target
from embedded_orch.input.run_input import AutomaticRunInput, BaseRunInput
from embedded_orch.input.sending import prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.store.inputs import InputRow

R = TypeVar("R")


class GetInputHandler(Generic[R]):
    """Inputs that a run receives: an iterator, plain and asynchronous.

    Args:
        run_input_cls: the class or type of them.
        key_prefix: how their keys begin; made from the type when not given.
        timeout: seconds after which it ends when none comes; None for never.
        poll_interval: at most so many seconds between two looks at what other processes send.
        raise_timeout_error: whether the end is a TimeoutError.
        exclude_keys: inputs to pass over.
        flow_run_id: who receives them; the run that the calling code is in when not given.
        with_metadata: give each as ``AutomaticRunInput``, which has its value and its metadata;
            a ``RunInput`` has its own.
    """

    def __init__(  # noqa: PLR0917 - Prefect's arguments
        self,
        run_input_cls: type[R],
        key_prefix: str | None = None,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] | None = None,
        flow_run_id: UUID | str | None = None,
        *,
        with_metadata: bool = False,
    ) -> None:
        self.run_input_cls = run_input_cls
        self.key_prefix = key_prefix or prefix_of(run_input_cls)
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.raise_timeout_error = raise_timeout_error
        self.exclude_keys = set(exclude_keys or ())
        self._engine, self.flow_run_id = target(flow_run_id)
        self._wanted = WantedInput(run_input_cls)
        # A generic such as list[int] is no class.
        kind: Any = run_input_cls
        has_metadata = isinstance(kind, type) and issubclass(kind, BaseRunInput)
        self._is_wrapped = with_metadata and not has_metadata

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        try:
            return drive(self._receiving())
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        try:
            return await self.anext()
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopAsyncIteration from None

    def next(self) -> Any:
        """The next input. In asynchronous code this is awaited.

        Raises:
            TimeoutError: none came in time.
        """
        return performed(self._receiving())

    async def anext(self) -> R:
        """:meth:`next`, awaited whatever the code around."""
        return await drive_async(self._receiving())

    def _receiving(self) -> Steps[R]:
        row = yield from receive_next(
            self._engine,
            self.flow_run_id,
            self.key_prefix,
            self.exclude_keys,
            timeout_seconds=self.timeout,
            poll_seconds=max(self.poll_interval, 0.01),
        )
        if row is None:
            raise TimeoutError(
                f"flow run {self.flow_run_id} received no {self._wanted.title} in time"
            )
        self.exclude_keys.add(row.key)
        return self._given(row)

    def _given(self, row: InputRow) -> R:
        value: Any = self._wanted.load(value_of(row))
        if self._is_wrapped:
            value = AutomaticRunInput(value=value)
        found: R = note_metadata(value, row.key, row.sender, self.flow_run_id)
        return found

    def __repr__(self) -> str:
        return f"<GetInputHandler of {self._wanted.title}>"


def receive_input(  # noqa: PLR0917 - Prefect's arguments
    input_type: type[R],
    timeout: float | None = 3600,
    poll_interval: float = 10,
    raise_timeout_error: bool = False,
    exclude_keys: Iterable[str] | None = None,
    key_prefix: str | None = None,
    flow_run_id: UUID | str | None = None,
    with_metadata: bool = False,
) -> GetInputHandler[R]:
    """The inputs of a class or type that are sent to a run, one after the other.

    Iterate over it, plainly or asynchronously, or ask it for the ``next()``. A run that is resumed
    receives them from the first one on again.

    Args:
        input_type: the class or type.
        timeout: seconds after which it ends when none comes; None for never.
        poll_interval: at most so many seconds between two looks at what other processes send.
        raise_timeout_error: whether that end is a TimeoutError.
        exclude_keys: inputs to pass over, by their keys.
        key_prefix: how their keys begin; made from the type when not given.
        flow_run_id: the run; the one that the calling code is in when not given.
        with_metadata: give each as an object with ``value`` and ``metadata``, which can also
            ``respond``; a ``RunInput`` is one already.

    Raises:
        MissingContextError: no run is named, and none is running here.
    """
    return GetInputHandler(
        input_type,
        key_prefix,
        timeout,
        poll_interval,
        raise_timeout_error,
        exclude_keys,
        flow_run_id,
        with_metadata=with_metadata,
    )

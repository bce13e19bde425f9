"""Typed inputs: classes of them, sending them, and receiving them one after the other."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

import msgspec

from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.engine.effects import drive, drive_async
from embedded_orch.engine.exchange import receive_next, value_of, write_input
from embedded_orch.engine.pausing import with_metadata
from embedded_orch.engine.run_inputs import Keyset, WantedInput, keyset_of
from embedded_orch.errors import ConfigurationError
from embedded_orch.input.actions import target
from embedded_orch.states.state import awaits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedded_orch.states import State

R = TypeVar("R")


class RunInputMetadata(msgspec.Struct, frozen=True):
    """Where an input was found, and who sent it to whom."""

    key: str
    sender: str | None
    receiver: UUID


class RunInput(msgspec.Struct, kw_only=True, dict=True):
    """A class of inputs: its fields are what has to be given."""

    _description: ClassVar[str | None] = None

    @property
    def metadata(self) -> RunInputMetadata:
        """Where it was found; only one that was received has that."""
        found: RunInputMetadata = self.__dict__["_metadata"]
        return found

    def _note_metadata(self, key: str, sender: str | None, receiver: UUID) -> None:
        # No field of it, which would have to be given.
        setattr(self, "_metadata", RunInputMetadata(key, sender, receiver))  # noqa: B010

    @classmethod
    def keyset_from_type(cls) -> Keyset:
        """The keys under which inputs of this class are sent."""
        return keyset_of(_base(cls))

    @classmethod
    def with_initial_data(cls, description: str | None = None, **kwargs: Any) -> type[Self]:
        """The same class with other defaults, and with a description for people."""
        known = {field.name: field for field in msgspec.structs.fields(cls)}
        unknown = sorted(set(kwargs) - set(known))
        if unknown:
            raise ConfigurationError(f"{cls.__name__} has no field {', '.join(unknown)}")
        fields = [
            (name, known[name].type, msgspec.field(default_factory=partial(copy, value)))
            for name, value in kwargs.items()
        ]
        made: Any = msgspec.defstruct(
            cls.__name__, fields, bases=(cls,), kw_only=True, module=cls.__module__
        )
        setattr(made, "_description", description)  # noqa: B010 - of a class that is just made
        found: type[Self] = made
        return found

    @classmethod
    def receive(cls, *args: Any, **kwargs: Any) -> InputHandler[Self]:
        """Inputs of this class that are sent to a run; see :func:`receive_input`."""
        return receive_input(cls, *args, **kwargs)

    def send_to(
        self, flow_run_id: UUID | str, sender: str | None = None, key_prefix: str | None = None
    ) -> Any:
        """Send it to a run; see :func:`send_input`."""
        return send_input(self, flow_run_id, sender, key_prefix)

    def respond(
        self, run_input: Any, sender: str | None = None, key_prefix: str | None = None
    ) -> Any:
        """Send an input back to the run that sent this one.

        Raises:
            ConfigurationError: it was sent by no run.
        """
        found = (self.metadata.sender or "").removeprefix("flow-run-")
        try:
            run_id = UUID(found)
        except ValueError as error:
            raise ConfigurationError(
                "only an input that was sent by a flow run can be responded to"
            ) from error
        return send_input(run_input, run_id, sender, key_prefix)


class InputHandler(Generic[R]):
    """Inputs that a run receives: an iterator, plain and asynchronous.

    Args:
        kind: the class or type of them.
        timeout: seconds after which it ends when none comes; None for never.
        poll_interval: at most so many seconds between two looks at what other processes send.
        raise_timeout_error: whether the end is a TimeoutError.
        exclude_keys: inputs to pass over.
        key_prefix: how their keys begin.
        flow_run_id: who receives them.
    """

    def __init__(
        self,
        kind: Any,
        *,
        timeout: float | None,
        poll_interval: float,
        raise_timeout_error: bool,
        exclude_keys: Iterable[str] | None,
        key_prefix: str | None,
        flow_run_id: UUID | str | None,
    ) -> None:
        self._wanted = WantedInput(kind)
        self._timeout = timeout
        self._poll = max(poll_interval, 0.01)
        self._raises = raise_timeout_error
        self._seen = set(exclude_keys or ())
        self._prefix = key_prefix or keyset_of(_base(kind))["response"]
        self._engine, self._run_id = target(flow_run_id)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        row = drive(self._steps())
        if row is None and not self._raises:
            raise StopIteration
        return self._value(row)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        row = await drive_async(self._steps())
        if row is None and not self._raises:
            raise StopAsyncIteration
        return self._value(row)

    def next(self) -> R:
        """The next input.

        Raises:
            TimeoutError: none came in time.
        """
        return self._value(drive(self._steps()))

    async def anext(self) -> R:
        """:meth:`next` without blocking the event loop."""
        return self._value(await drive_async(self._steps()))

    def _steps(self) -> Any:
        return receive_next(
            self._engine,
            self._run_id,
            self._prefix,
            self._seen,
            timeout_seconds=self._timeout,
            poll_seconds=self._poll,
        )

    def _value(self, row: Any) -> R:
        if row is None:
            raise TimeoutError(f"flow run {self._run_id} received no {self._wanted.title} in time")
        self._seen.add(row.key)
        value: R = with_metadata(
            self._wanted.load(value_of(row)), row.key, row.sender, self._run_id
        )
        return value

    def __repr__(self) -> str:
        return f"<InputHandler of {self._wanted.title}>"


def receive_input(  # noqa: PLR0917 - Prefect's arguments
    input_type: type[R],
    timeout: float | None = 3600,
    poll_interval: float = 10,
    raise_timeout_error: bool = False,
    exclude_keys: Iterable[str] | None = None,
    key_prefix: str | None = None,
    flow_run_id: UUID | str | None = None,
) -> InputHandler[R]:
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

    Raises:
        MissingContextError: no run is named, and none is running here.
    """
    return InputHandler(
        input_type,
        timeout=timeout,
        poll_interval=poll_interval,
        raise_timeout_error=raise_timeout_error,
        exclude_keys=exclude_keys,
        key_prefix=key_prefix,
        flow_run_id=flow_run_id,
    )


def send_input(
    run_input: Any,
    flow_run_id: UUID | str,
    sender: str | None = None,
    key_prefix: str | None = None,
) -> Any:
    """Send an input to a flow run, which receives it by its class or type.

    In asynchronous code this is awaited.

    Args:
        run_input: an object of a class with fields, or any value that JSON holds.
        flow_run_id: who receives it.
        sender: who sends it; the flow run that the calling code is in when not given.
        key_prefix: how its key begins; made from its type when not given.

    Raises:
        RunNotFound: no flow run has the id.
        ConfigurationError: the prefix cannot be one.
    """
    engine, run_id = target(flow_run_id)
    kind, here = type(run_input), current_flow_run()
    prefix = key_prefix or keyset_of(_base(kind))["response"]
    if sender is None and here is not None:
        sender = f"flow-run-{here.run_id}"
    value = WantedInput(kind).dump(run_input)
    steps = write_input(engine, run_id, f"{prefix}-{engine.process.new_id()}", value, sender)
    return drive_async(steps) if awaits() else drive(steps)


def keyset_from_base_key(base_key: str) -> Keyset:
    """The keys under which an input is described and answered, as they begin alike."""
    return keyset_of(base_key)


def keyset_from_paused_state(state: State) -> Keyset:
    """The keys of what a paused run waits for.

    Raises:
        ConfigurationError: the state is not paused.
    """
    if not state.is_paused():
        raise ConfigurationError(f"{state!r} is no paused state")
    return keyset_of(f"{state.name.lower()}-{state.state_details.pause_key}")


def _base(kind: Any) -> str:
    name = str(getattr(kind, "__name__", kind)).lower()
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in name)

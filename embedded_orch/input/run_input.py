"""Classes of inputs: what a pause waits for and what runs send each other, by its fields."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

import msgspec

from embedded_orch.engine.effects import drive_async
from embedded_orch.engine.run_inputs import Keyset, WantedInput, keyset_of
from embedded_orch.errors import ConfigurationError
from embedded_orch.input.actions import (
    SENDING_RUN,
    FlowRunInput,
    creating,
    performed,
    reading,
    target,
)
from embedded_orch.input.sending import base_key, sending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedded_orch.engine.effects import Steps
    from embedded_orch.input.receiving import GetInputHandler
    from embedded_orch.states import State

T = TypeVar("T")


class RunInputMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where an input was found, and who sent it to whom."""

    key: str
    sender: str | None = None
    receiver: UUID


class BaseRunInput(msgspec.Struct, kw_only=True, dict=True):
    """What all inputs can do that are objects with fields."""

    _description: ClassVar[str | None] = None

    @property
    def metadata(self) -> RunInputMetadata:
        """Where it was found; only one that was received has that."""
        found: RunInputMetadata = self.__dict__["_metadata"]
        return found

    def _note_metadata(self, key: str, sender: str | None, receiver: UUID) -> None:
        # No field of it, which would have to be given.
        setattr(self, "_metadata", RunInputMetadata(key=key, sender=sender, receiver=receiver))  # noqa: B010

    @classmethod
    def keyset_from_type(cls) -> Keyset:
        """The keys under which inputs of this class are described and answered."""
        return keyset_of(base_key(cls))

    @classmethod
    def save(cls, keyset: Keyset, flow_run_id: UUID | str | None = None) -> Any:
        """Write down, for a run, what an input of this class has to be.

        In asynchronous code this is awaited.
        """
        return performed(cls._saving(keyset, flow_run_id))

    @classmethod
    async def asave(cls, keyset: Keyset, flow_run_id: UUID | str | None = None) -> None:
        """:meth:`save`, awaited whatever the code around."""
        await drive_async(cls._saving(keyset, flow_run_id))

    @classmethod
    def load(cls, keyset: Keyset, flow_run_id: UUID | str | None = None) -> Any:
        """The input that a run was answered with; one of defaults when it was not.

        In asynchronous code this is awaited.

        Raises:
            RunInputError: what is there does not fit.
        """
        return performed(cls._loading(keyset, flow_run_id))

    @classmethod
    async def aload(cls, keyset: Keyset, flow_run_id: UUID | str | None = None) -> Self:
        """:meth:`load`, awaited whatever the code around."""
        return await drive_async(cls._loading(keyset, flow_run_id))

    @classmethod
    def load_from_flow_run_input(cls, flow_run_input: FlowRunInput) -> Self:
        """The input that stands in a record of one.

        Raises:
            RunInputError: it does not fit.
        """
        found = flow_run_input
        return cls._given(found.decoded_value, found.key, found.sender, found.flow_run_id)

    def send_to(
        self, flow_run_id: UUID | str, sender: str | None = None, key_prefix: str | None = None
    ) -> Any:
        """Send it to a run; see :func:`send_input`."""
        return performed(sending(self, flow_run_id, sender, key_prefix))

    async def asend_to(
        self, flow_run_id: UUID | str, sender: str | None = None, key_prefix: str | None = None
    ) -> None:
        """:meth:`send_to`, awaited whatever the code around."""
        await drive_async(sending(self, flow_run_id, sender, key_prefix))

    def respond(
        self, run_input: Any, sender: str | None = None, key_prefix: str | None = None
    ) -> Any:
        """Send an input back to the run that sent this one.

        Raises:
            ConfigurationError: it was sent by no run.
        """
        return performed(sending(run_input, self._sending_run(), sender, key_prefix))

    async def arespond(
        self, run_input: Any, sender: str | None = None, key_prefix: str | None = None
    ) -> None:
        """:meth:`respond`, awaited whatever the code around."""
        await drive_async(sending(run_input, self._sending_run(), sender, key_prefix))

    def _sending_run(self) -> UUID:
        try:
            return UUID((self.metadata.sender or "").removeprefix(SENDING_RUN))
        except ValueError as error:
            raise ConfigurationError(
                "only an input that was sent by a flow run can be responded to"
            ) from error

    @classmethod
    def _saving(cls, keyset: Keyset, flow_run_id: UUID | str | None) -> Steps[None]:
        yield from creating(keyset["schema"], WantedInput(cls).schema, flow_run_id, None)
        if cls._description is not None:
            yield from creating(keyset["description"], cls._description, flow_run_id, None)

    @classmethod
    def _loading(cls, keyset: Keyset, flow_run_id: UUID | str | None) -> Steps[Self]:
        key = keyset["response"]
        value = yield from reading(key, flow_run_id)
        return cls._given(value or {}, key, None, target(flow_run_id)[1])

    @classmethod
    def _given(cls, value: dict[str, Any], key: str, sender: str | None, receiver: UUID) -> Self:
        found: Self = WantedInput(cls).load(value)
        found._note_metadata(key, sender, receiver)
        return found


class RunInput(BaseRunInput):
    """A class of inputs: its fields are what has to be given."""

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
    def receive(  # noqa: PLR0917 - Prefect's arguments
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: UUID | str | None = None,
    ) -> GetInputHandler[Self]:
        """Inputs of this class that are sent to a run; see :func:`receive_input`."""
        from embedded_orch.input.receiving import GetInputHandler  # it imports this module

        return GetInputHandler(
            cls, key_prefix, timeout, poll_interval, raise_timeout_error, exclude_keys, flow_run_id
        )


class AutomaticRunInput(BaseRunInput, Generic[T]):
    """A received value of a type that has no metadata of its own, with its metadata."""

    value: T


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

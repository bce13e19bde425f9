"""How the value of a run is kept: whether at all, by which serializer, and at hand for how long.

A task says so by its options, and what it leaves open is as its flow has it, whose caller is asked
next. What nobody says is kept as tagged JSON, if it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from embedded_orch import values
from embedded_orch.errors import ConfigurationError, ValueNotStorable
from embedded_orch.states import VALUE
from embedded_orch.values.serializers import Serializer, dump, resolve_serializer

if TYPE_CHECKING:
    from embedded_orch.engine.options import Options

_IN_MEMORY = "the run goes on with the value in memory, and resuming it runs this call again"


class Keeping(NamedTuple):
    """How the value of a run is kept.

    Attributes:
        is_stored: whether it is stored at all, if it can be.
        is_required: whether a value that cannot be stored fails the run.
        is_at_hand: whether it stays in memory once it is stored.
        serializer: that makes bytes of it; tagged JSON when None.
    """

    is_stored: bool = True
    is_required: bool = False
    is_at_hand: bool = True
    serializer: Serializer | None = None

    def encode(self, value: object) -> tuple[bytes, str]:
        """The bytes that are stored, and the name of their format.

        Raises:
            ValueNotStorable: it cannot be; the message says what helps.
        """
        try:
            if self.serializer is None:
                return values.encode(value), VALUE
            return dump(self.serializer, value), self.serializer.stored_name
        except ValueNotStorable as error:
            said = str(error).rstrip(".")
            raise ValueNotStorable(f"{said}. {self._advice}") from None

    @property
    def runs_code(self) -> bool:
        """Whether reading a stored value may run whatever its bytes say."""
        return self.serializer is not None and self.serializer.runs_code

    @property
    def inherited(self) -> Keeping:
        """How runs are kept that say nothing of it, inside of one that is kept so."""
        if self.is_at_hand and not self.is_required:
            return self
        return self._replace(is_required=False, is_at_hand=True)

    @property
    def _advice(self) -> str:
        helps = (
            "persist_result=False leaves it out"
            if self.runs_code
            else 'result_serializer="pickle" stores it'
        )
        return helps if self.is_required else f"{helps}; without it {_IN_MEMORY}"


KEPT = Keeping()
"""As it is when nobody says anything."""


def keeping_of(options: Options, around: Keeping) -> Keeping:
    """How the values of runs with these options are kept.

    Args:
        options: of a flow or task.
        around: how those of the flow around it are.
    """
    if not options.says_how_to_keep:
        return around.inherited
    persist, serializer = options.persist_result, options.result_serializer
    return Keeping(
        is_stored=(around.is_stored or options.asks_to_persist) if persist is None else persist,
        is_required=persist is True,
        is_at_hand=options.cache_result_in_memory,
        serializer=around.serializer if serializer is None else _chosen(serializer),
    )


def check_keeping(options: Options) -> None:
    """Refuse options about results that cannot be, when a function is decorated.

    Raises:
        ConfigurationError: the message says which and why.
    """
    persist: object = options.persist_result
    if persist not in (None, True, False):
        raise ConfigurationError(f"persist_result={persist!r}: it is True, False or None")
    if options.result_serializer is not None:
        resolve_serializer(options.result_serializer)


def _chosen(serializer: Serializer | str) -> Serializer | None:
    """A serializer; None for tagged JSON without settings, which needs none."""
    found = resolve_serializer(serializer)
    return None if found.stored_name == VALUE else found

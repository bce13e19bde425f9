"""How the value of a run is kept: whether at all, by which serializer, and at hand for how long.

A task says so by its options, and what it leaves open is as its flow has it, whose caller is asked
next. What nobody says is kept as tagged JSON, if it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from embedded_orch import values
from embedded_orch.errors import ConfigurationError, ValueNotStorable
from embedded_orch.states import VALUE
from embedded_orch.values.places import NOWHERE, Places
from embedded_orch.values.serializers import Serializer, dump, resolve_serializer

if TYPE_CHECKING:
    from embedded_orch.engine.options import Options
    from embedded_orch.values.places import Kept

EVERYTHING = -1
"""For ``largest_inside``: no value is stored in its row."""
_IN_MEMORY = "the run goes on with the value in memory, and resuming it runs this call again"


class Keeping(NamedTuple):
    """How the value of a run is kept.

    Attributes:
        is_stored: whether it is stored at all, if it can be.
        is_required: whether a value that cannot be stored fails the run.
        is_at_hand: whether it stays in memory once it is stored.
        serializer: that makes bytes of it; tagged JSON when None.
        storage: where it is put; the database, or the folder beside it, when None.
        largest_inside: bytes of the largest value that is stored in the row of its state.
        places: where those are put that are not.
    """

    is_stored: bool = True
    is_required: bool = False
    is_at_hand: bool = True
    serializer: Serializer | None = None
    storage: Any = None
    largest_inside: int = NOWHERE.largest_inside
    places: Places = NOWHERE

    def put(self, data: bytes, data_format: str, path: str | None) -> Kept:
        """Put an encoded value where values are that are not in rows.

        Args:
            data: the value.
            data_format: how it is encoded.
            path: in the storage; the hash of the value when None.

        Raises:
            ValueNotStorable: it cannot be.
        """
        return self.places.put(data, data_format, storage=self.storage, path=path)

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


def kept_in(places: Places) -> Keeping:
    """As it is when nobody says anything, in a database whose values have these places."""
    return Keeping(places=places, largest_inside=places.largest_inside)


def keeping_of(options: Options, around: Keeping) -> Keeping:
    """How the values of runs with these options are kept.

    Args:
        options: of a flow or task.
        around: how those of the flow around it are.
    """
    if not options.says_how_to_keep:
        return around.inherited
    persist = options.persist_result
    keeping = keeping_in(
        around,
        storage=options.result_storage,
        key_storage=options.key_storage,
        serializer=options.result_serializer,
    )
    return Keeping(
        is_stored=(around.is_stored or options.asks_to_persist) if persist is None else persist,
        is_required=persist is True,
        is_at_hand=options.cache_result_in_memory,
        serializer=keeping.serializer,
        storage=keeping.storage,
        largest_inside=keeping.largest_inside,
        places=keeping.places,
    )


def keeping_in(
    around: Keeping, *, storage: Any, key_storage: Any, serializer: Serializer | str | None
) -> Keeping:
    """The same keeping with another storage and serializer; those that are None stay as they are.

    Args:
        around: what it is based on.
        storage: of the values.
        key_storage: of the records of their keys.
        serializer: that makes bytes of values.
    """
    if storage is None and key_storage is None and serializer is None:
        return around
    chosen = around.storage if storage is None else storage
    if chosen is None:
        # Whoever finds the key there has to find the value as well.
        chosen = key_storage
    if chosen is not None:
        around.places.remember(chosen)
    return around._replace(
        serializer=around.serializer if serializer is None else _chosen(serializer),
        storage=chosen,
        # A storage that was chosen has all of them, also small ones.
        largest_inside=around.largest_inside if chosen is None else EVERYTHING,
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

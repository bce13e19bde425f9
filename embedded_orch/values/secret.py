"""A value that is used, and never stored, shown, logged or sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from weakref import ref

T_co = TypeVar("T_co", covariant=True)

_MASK = "**********"
# A shorter text is in too many others, which would be masked with it.
_SHORTEST = 4
_DEEPEST = 8


@final
class Secret(Generic[T_co]):
    """Keeps a value out of every text and every file; `get()` hands it out.

    ``str()``, ``repr()`` and formatting show a mask. As a parameter or a result it counts as not
    storable, so the database holds its type only, and a resumed run asks for it again. In the
    hash of a call's inputs, too, it counts by its type: rotating a password makes no new call.
    Pickling is refused, since pickles end up in files; a copy is the same object.
    """

    __slots__ = ("__weakref__", "_value")

    _value: T_co

    def __init__(self, value: T_co) -> None:
        object.__setattr__(self, "_value", value)
        in_use.add(self)

    def get(self) -> T_co:
        """Return the value itself."""
        return self._value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed: make a new one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed: make a new one")

    def __repr__(self) -> str:
        return f"Secret({_MASK!r})"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, format_spec: str) -> str:
        return format(_MASK, format_spec)

    def __eq__(self, other: object) -> bool:
        theirs: Any = other
        return bool(self._value == theirs.get()) if type(other) is Secret else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret[T_co]:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a Secret cannot be pickled: read it where it is used (in the task that runs in the "
            "other process, for instance) instead of passing it there"
        )


class SecretsInUse:
    """The secrets that this process has at hand, to keep their values out of what it logs.

    Any thread may use it, and no lock is taken: it is asked by whatever logs.
    """

    def __init__(self) -> None:
        self._secrets: dict[int, ref[Secret[Any]]] = {}
        self._changed = object()
        self._texts: tuple[object, list[str]] = (None, [])

    def add(self, secret: Secret[Any]) -> None:
        """A secret was made; it is forgotten when it is gone."""
        from weakref import ref

        key = id(secret)

        def forget(gone: ref[Secret[Any]]) -> None:
            # Another may have its place by now.
            if self._secrets.get(key) is gone:
                del self._secrets[key]
            self._changed = object()

        self._secrets[key] = ref(secret, forget)
        self._changed = object()

    def masked(self, text: str) -> str:
        """The text with every value of a secret, of four characters or more, masked.

        Values are looked for as they are, as ``repr()`` shows them and as a URL has them; of
        dictionaries, lists, tuples and sets every text, number and bytes in them.
        """
        if not self._secrets:
            return text
        for value in self._known():
            if value in text:
                text = text.replace(value, _MASK)
        return text

    def _known(self) -> list[str]:
        """The texts to look for, the longest first: another may be a part of it."""
        changed, texts = self._texts
        if changed is not self._changed:
            # Asked before the secrets are: one that comes meanwhile makes it differ again.
            changed = self._changed
            alive = [found for each in list(self._secrets.values()) if (found := each())]
            found_texts = {text for secret in alive for text in _texts_of(secret.get(), 0)}
            texts = sorted(found_texts, key=len, reverse=True)
            self._texts = changed, texts
        return texts


def _texts_of(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "replace")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        from urllib.parse import quote

        for text in (value, repr(value)[1:-1], quote(value, safe="")):
            if len(text) >= _SHORTEST:
                yield text
    elif isinstance(value, list | tuple | set | frozenset | type({}.values())) and depth < _DEEPEST:
        for item in value:
            yield from _texts_of(item, depth + 1)


in_use = SecretsInUse()
"""Those of this process: a secret is one wherever it is used."""

"""Serializers: how a value becomes the bytes that are stored, where tagged JSON is not the choice.

Tagged JSON (:mod:`embedded_orch.values.codec`) is the default. Another serializer is named by the
user, and named again beside each value that it wrote, as text: its type, or a JSON object of its
type and settings. So a value can be read without knowing who wrote it. What such a text names is
looked up among the classes and modules that are loaded, and never imported: a database file decides
nothing about what code runs. Pickle is code in itself; it is used only where it was chosen.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec

from embedded_orch.errors import ConfigurationError, MissingResult, ValueNotStorable
from embedded_orch.values.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

# Modules that a stored text may have imported: they compress or pickle, and do nothing else.
_HARMLESS = frozenset({"bz2", "cloudpickle", "gzip", "json", "lzma", "pickle", "zlib"})


class Serializer:
    """Turns values into bytes and back. A subclass with a ``type`` of its own is found by that.

    A subclass says what can be set by class attributes with their defaults; they are given by name
    when one is made, have to be what JSON holds, and are stored with each value.

    Attributes:
        type: its name.
    """

    type: str = ""

    def __new__(cls, **settings: Any) -> Self:
        """One of the class, or of that class which the type names."""
        wanted: Any = settings.get("type", cls.type)
        kind: Any = cls if cls is not Serializer or wanted == "" else _class_of(wanted)
        if kind is Serializer:
            raise ConfigurationError("a Serializer needs a type: use a subclass, or name one")
        made: Self = object.__new__(kind)
        return made

    def __init__(self, **settings: Any) -> None:
        """One with some settings other than the defaults.

        Raises:
            ConfigurationError: there is no such setting.
        """
        for name, value in settings.items():
            if name == "type" and value == type(self).type:
                continue
            if name not in self.defaults():
                raise ConfigurationError(
                    f"the serializer {self.type!r} has no {name!r}; it has "
                    f"{', '.join(self.defaults()) or 'no settings'}"
                )
            if value != getattr(self, name):
                setattr(self, name, value)

    @property
    def runs_code(self) -> bool:
        """Whether reading what it wrote runs whatever the bytes say."""
        return False

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """What can be set, with its default."""
        found: dict[str, object] = {}
        for kind in reversed(cls.__mro__[:-1]):
            for name in vars(kind).get("__annotations__", {}):
                if name != "type" and hasattr(cls, name):
                    found[name] = getattr(cls, name)
        return found

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes."""
        raise TypeError(f"{type(self).__name__} does not say how a value becomes bytes")

    def loads(self, blob: bytes) -> Any:
        """The value that became these bytes."""
        raise TypeError(f"{type(self).__name__} does not say how bytes become a value")

    @property
    def stored_name(self) -> str:
        """What is stored beside a value, so that it can be read: see :func:`serializer_of`."""
        settings = {
            name: _storable(getattr(self, name))
            for name, default in self.defaults().items()
            if getattr(self, name) != default
        }
        if not settings:
            return self.type
        return msgspec.json.encode({"type": self.type, **settings}, order="sorted").decode()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]  # its settings may be changed

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class JSONSerializer(Serializer):
    """Tagged JSON, from which values come back equal and of their type; the default.

    With any of its settings, the JSON of that library and whatever it makes of a value.

    Attributes:
        jsonlib: a module with ``dumps`` and ``loads``.
        object_encoder: "module.function" for what that library does not know.
        object_decoder: "module.function" for each object that was read.
        dumps_kwargs: more for ``dumps``.
        loads_kwargs: more for ``loads``.
    """

    type = "json"
    jsonlib: str | None = None
    object_encoder: str | None = None
    object_decoder: str | None = None
    dumps_kwargs: dict[str, Any] | None = None
    loads_kwargs: dict[str, Any] | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._check("dumps_kwargs", "default", "object_encoder")
        self._check("loads_kwargs", "object_hook", "object_decoder")

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes."""
        if not vars(self):
            return encode(obj)
        options = dict(self.dumps_kwargs or {})
        if self.object_encoder is not None:
            options["default"] = _function(self.object_encoder)
        text = _module(self.jsonlib or "json", "dumps", "loads").dumps(obj, **options)
        return text if isinstance(text, bytes) else str(text).encode()

    def loads(self, blob: bytes) -> Any:
        """The value that became these bytes."""
        if not vars(self):
            return decode(blob)
        options = dict(self.loads_kwargs or {})
        if self.object_decoder is not None:
            options["object_hook"] = _function(self.object_decoder)
        return _module(self.jsonlib or "json", "dumps", "loads").loads(blob, **options)

    def _check(self, name: str, key: str, instead: str) -> None:
        if key in (getattr(self, name) or {}):
            raise ConfigurationError(f"{name} has {key!r}; use {instead}= for that")


class PickleSerializer(Serializer):
    """Pickle, by cloudpickle where it is installed. Reading it runs whatever the bytes say.

    Attributes:
        picklelib: a module with ``dumps`` and ``loads``; cloudpickle, else pickle, when None.
    """

    type = "pickle"
    picklelib: str | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.picklelib is not None:
            _module(self.picklelib, "dumps", "loads")

    @property
    def runs_code(self) -> bool:
        """Whether reading what it wrote runs whatever the bytes say: it does."""
        return True

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes."""
        made: bytes = self._library().dumps(obj)
        return made

    def loads(self, blob: bytes) -> Any:
        """The value that became these bytes."""
        return self._library().loads(blob)

    def _library(self) -> Any:
        if self.picklelib is not None:
            return _module(self.picklelib, "dumps", "loads")
        try:
            return _module("cloudpickle", "dumps", "loads")
        except ConfigurationError:
            # Not installed. Both read what either wrote, as far as they can.
            return _module("pickle", "dumps", "loads")


class CompressedSerializer(Serializer):
    """What another serializer makes, compressed.

    Attributes:
        serializer: the other one, or its type.
        compressionlib: a module with ``compress`` and ``decompress``.
    """

    type = "compressed"
    serializer: Serializer | str = ""
    compressionlib: str = "lzma"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.serializer == "":
            raise ConfigurationError("CompressedSerializer(serializer=...): say of which one")
        resolve_serializer(self.serializer)
        _module(self.compressionlib, "compress", "decompress")

    @property
    def runs_code(self) -> bool:
        """Whether reading what it wrote runs whatever the bytes say: if that of the other does."""
        return self.inner.runs_code

    @property
    def inner(self) -> Serializer:
        """What makes the bytes that are compressed."""
        return resolve_serializer(self.serializer)

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes."""
        library = _module(self.compressionlib, "compress", "decompress")
        made: bytes = library.compress(self.inner.dumps(obj))
        return made

    def loads(self, blob: bytes) -> Any:
        """The value that became these bytes."""
        library = _module(self.compressionlib, "compress", "decompress")
        return self.inner.loads(library.decompress(blob))


class CompressedPickleSerializer(CompressedSerializer):
    """Pickle, compressed."""

    type = "compressed/pickle"
    serializer: Serializer | str = "pickle"


class CompressedJSONSerializer(CompressedSerializer):
    """Tagged JSON, compressed."""

    type = "compressed/json"
    serializer: Serializer | str = "json"


def resolve_serializer(serializer: Serializer | str) -> Serializer:
    """A serializer by itself or by its type.

    Raises:
        ConfigurationError: there is none of the type.
    """
    given: Any = serializer
    if isinstance(given, Serializer):
        return given
    if not isinstance(given, str):
        raise ConfigurationError(
            f"result_serializer={serializer!r}: give a Serializer, or the type of one as text"
        )
    kind: Any = _class_of(given)
    made: Serializer = kind()
    return made


def serializer_of(stored_name: str) -> Serializer:
    """The serializer that wrote a value, by what is stored beside it.

    Raises:
        MissingResult: its class or what it needs is not loaded here.
    """
    try:
        if not stored_name.startswith("{"):
            return resolve_serializer(stored_name)
        settings: dict[str, Any] = msgspec.json.decode(stored_name, type=dict[str, Any])
        return _made_of(settings)
    except (ConfigurationError, msgspec.DecodeError, TypeError) as error:
        raise MissingResult(f"the stored value cannot be read: {error}") from error


def dump(serializer: Serializer, value: object, *, name: str = "result") -> bytes:
    """The value as bytes.

    Raises:
        ValueNotStorable: the serializer, which may be the user's, cannot do it.
    """
    try:
        return serializer.dumps(value)
    except ValueNotStorable:
        raise
    except Exception as error:
        raise ValueNotStorable(
            f"{name} is of type {type(value).__qualname__}, which the serializer "
            f"{serializer.type!r} cannot store: {type(error).__name__}: {error}"
        ) from error


def load(serializer: Serializer, data: bytes) -> object:
    """The value that became these bytes.

    Raises:
        MissingResult: the serializer, which may be the user's, cannot do it.
    """
    try:
        found: object = serializer.loads(data)
        return found
    except MissingResult:
        raise
    except Exception as error:
        raise MissingResult(
            f"the stored value cannot be read by the serializer {serializer.type!r}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _made_of(settings: dict[str, Any]) -> Serializer:
    """A serializer of stored settings, which import nothing that is not harmless."""
    for name in ("jsonlib", "picklelib", "compressionlib", "object_encoder", "object_decoder"):
        module = settings.get(name)
        if module is None:
            continue
        if name.startswith("object_"):
            module = module.rpartition(".")[0]
        if module not in _HARMLESS and module not in sys.modules:
            raise ConfigurationError(f"it was written with {module}, which is not imported here")
    inner = settings.get("serializer")
    if isinstance(inner, dict):
        settings = {**settings, "serializer": _made_of(inner)}
    kind: Any = _class_of(settings.get("type"))
    made: Serializer = kind(**settings)
    return made


def _class_of(type: object) -> type[Serializer]:
    found = [kind for kind in _subclasses(Serializer) if kind.type == type]
    if not found:
        known = sorted({repr(kind.type) for kind in _subclasses(Serializer)})
        raise ConfigurationError(f"there is no serializer {type!r}; there are {', '.join(known)}")
    # The last one: a notebook's cell that is run again defines the class again.
    return found[-1]


def _subclasses(kind: type[Serializer]) -> Iterator[type[Serializer]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _storable(setting: object) -> object:
    if isinstance(setting, Serializer):
        name = setting.stored_name
        return msgspec.json.decode(name) if name.startswith("{") else name
    return setting


def _module(name: str, *functions: str) -> Any:
    from importlib import import_module

    try:
        module: ModuleType = import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"the module {name!r} is not installed") from error
    missing = [each for each in functions if not callable(getattr(module, each, None))]
    if missing:
        raise ConfigurationError(f"the module {name!r} has no {' and no '.join(missing)}")
    return module


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    found: Callable[..., Any] = getattr(_module(module), attribute)
    return found

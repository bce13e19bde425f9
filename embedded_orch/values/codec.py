"""Values as bytes and back: what a task returned, what a flow was called with.

The bytes are JSON (UTF-8). None, bool, int, float, str, lists and dicts with text keys look as
they always do in JSON, so any SQLite tool reads them; whatever plain JSON would change is an
object with one key that starts with ``$``: ``{"$tuple":[1,2]}``. Small plain values take one
call in C (`plain`); the others are turned into a tree first (`tagging`). Reading goes through
`rebuilding`, which never imports and never calls what the bytes name.

What is promised: `decode(encode(value))` is equal to the value and of the same type, at every
depth, or `encode` raises `ValueNotStorable`. Equality is not taken on trust:

- Containers and standard types are made again from the same parts. Equal means here that no part
  differs, so NaN comes back as NaN and negative zero as negative zero, though ``==`` says nothing
  about the one and too little about the other. Dicts keep their order.
- Dataclasses, attrs classes, Structs and named tuples that compare by their fields come back with
  equal fields, those included that do not take part in ``==``.
- A class that compares by identity (``eq=False`` and no ``__eq__``) is refused.
- For a class with an ``__eq__`` of its own, a copy is made from what would be stored and compared:
  refused if that is not true. This is the only code of a user's class that `encode` runs.
- An instance with attributes beside its fields is refused, since they would be lost.
- Only exact types are known. A subclass of str, dict, datetime, ... is refused.

Two things are not kept: an object that is met twice comes back as two equal ones, and the
`is_safe` of a UUID, which takes no part in its equality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch.errors import MissingResult, ValueNotStorable
from embedded_orch.values.classes import qualified_name
from embedded_orch.values.plain import TAG_START, plain_json
from embedded_orch.values.rebuilding import rebuild
from embedded_orch.values.tagging import Refusal, Tagging, named_trees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedded_orch.values.plain import Tree

to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode

_TAG_IN_BYTES = b'"' + TAG_START.encode()
_TAG_IN_TEXT = '"' + TAG_START


def encode(value: object, *, name: str = "result", advice: str = "") -> bytes:
    """Return the JSON text from which `decode` makes an equal value of the same type.

    `name` stands for the whole value in the message if it cannot be stored, `advice` is a
    sentence that says what helps.

    Raises:
        ValueNotStorable: It would not come back so. The message says where in the value, which
            type, and why.
    """
    plain = plain_json(value, to_json)
    if plain is not None:
        return plain
    try:
        return to_json(Tagging(to_json).tag(value))
    except Refusal as refusal:
        raise ValueNotStorable(_message(refusal, name, advice)) from None
    except RecursionError:
        raise ValueNotStorable(
            f"{name} cannot be stored: too little is left of Python's stack where it is asked for"
        ) from None
    except RuntimeError as error:
        raise ValueNotStorable(
            f"{name} cannot be stored: another thread changes it meanwhile ({error})"
        ) from error


def decode(data: bytes | str) -> object:
    """Return the value that `encode` made these bytes from.

    Raises:
        MissingResult: They are not from `encode`, or hold an instance of a class that is not
            loaded or has changed since. Nothing was imported and no code of theirs was run.
    """
    try:
        tree = _from_json(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MissingResult(f"the stored value cannot be read: {error}") from error
    except RecursionError:
        raise MissingResult("the stored value is nested too deeply to be read") from None
    tagged = _TAG_IN_BYTES in data if isinstance(data, bytes) else _TAG_IN_TEXT in data
    return rebuild(tree) if tagged else tree


def decode_plain(data: bytes) -> tuple[bool, object]:
    """Whether these bytes are a value that plain JSON holds as it is, and the value.

    It takes one call in C, and none of any class of the user's: it may be made in a transaction.
    """
    if _TAG_IN_BYTES in data:
        return False, None
    try:
        return True, _from_json(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False, None


def decode_parsed(tree: Tree) -> object:
    """Return the value that `encode` wrote, where the database driver has parsed the JSON already.

    Raises:
        MissingResult: As for `decode`.
    """
    return rebuild(tree)


def encode_parameters(parameters: Mapping[str, object]) -> tuple[str, dict[str, str]]:
    """Return the JSON object of the parameters that can be stored, and the types of the others.

    A parameter that cannot be stored (`self`, a connection, a DataFrame, a `Secret`) is known
    only by its name and the qualified name of its type, "module:qualname".
    """
    plain = plain_json(parameters, to_json)
    if plain is not None:
        return plain.decode(), {}
    trees: dict[str, Tree] = {}
    not_stored: dict[str, str] = {}
    for name, value in parameters.items():
        try:
            trees[name] = Tagging(to_json).tag(value)
        except (Refusal, RuntimeError):  # as in `encode`
            not_stored[name] = qualified_name(type(value))
    return to_json(named_trees(trees)).decode(), not_stored


def _message(refusal: Refusal, name: str, advice: str) -> str:
    if refusal.reason:
        said = f"which cannot be stored: {refusal.reason}"
    else:
        said = "which would not come back from JSON equal and of its type"
    type_name = refusal.type_name.removeprefix("builtins:")
    return f"{name}{refusal.path} is of type {type_name}, {said}. {advice}".rstrip()

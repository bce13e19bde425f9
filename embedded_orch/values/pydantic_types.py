"""Values that fields of pydantic's models hold, and no other library makes: zones and addresses.

A time that pydantic reads from a text has a time zone of pydantic's own, an offset in seconds. Its
``HttpUrl``, ``PostgresDsn`` and the like wrap an address of its core. pydantic is never imported
here: where such a value is written it is loaded, and where it is not, none is made.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import MissingResult
from embedded_orch.values.known_types import integer, items, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.values.plain import Tree

_CORE, _NETWORKS = "pydantic_core", "pydantic.networks"
_ADDRESS = "_url"  # the one attribute that an address has


def to_tagged(value: object) -> Tree:
    """Return a time zone or an address of pydantic as tagged value; None if it is neither."""
    core: Any = sys.modules.get(_CORE)
    if core is None:
        return None
    cls = type(value)
    if cls is getattr(core, "TzInfo", None):
        zone: Any = value
        return {"$tzinfo": round(zone.utcoffset(None).total_seconds())}
    if cls.__module__ != _NETWORKS or list(getattr(value, "__dict__", ())) != [_ADDRESS]:
        return None
    address: Any = object.__getattribute__(value, _ADDRESS)
    if type(address) not in (core.Url, core.MultiHostUrl):
        return None
    payload: Tree = [cls.__name__, type(address).__name__, str(address)]
    return {"$address": payload} if _address(payload) == value else None


def _zone(payload: Tree) -> object:
    return _loaded(_CORE).TzInfo(integer(payload))


def _address(payload: Tree) -> object:
    name, kind, written = map(text, items(payload, 3))
    found: object = vars(_loaded(_NETWORKS)).get(name)
    if not isinstance(found, type) or found.__module__ != _NETWORKS:
        raise ValueError(f"pydantic has no addresses of class {name[:40]!r}")
    if kind not in ("Url", "MultiHostUrl"):
        raise ValueError(f"pydantic has no addresses of kind {kind[:40]!r}")
    cls: Any = found
    address: object = object.__new__(cls)
    object.__setattr__(address, _ADDRESS, getattr(_loaded(_CORE), kind)(written))
    return address


def _loaded(module: str) -> Any:
    found = sys.modules.get(module)
    if found is None:
        raise MissingResult(
            "the stored value holds a value of pydantic, and this process has not imported it: "
            "import pydantic before reading the value"
        )
    return found


from_payload: dict[str, Callable[[Tree], object]] = {"$tzinfo": _zone, "$address": _address}

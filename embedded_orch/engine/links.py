"""Which task run made which object, so that an argument tells which run it came from.

Objects are told apart by identity, as Prefect does: what is equal may have come from elsewhere. An
id says nothing once its object is gone and another one has its place, so an object is held here for
as long as somebody else has it, and not longer than until the next few are noted: by a weak
reference where it can have one, and else by a reference that is let go once it is the last one.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import OrderedDict
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from embedded_orch.engine.walking import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Bounds of the memory that one flow run takes for this.
_MOST_OBJECTS = 10_000
_MOST_ITEMS = 1_000
# How many of the oldest are looked at when one is noted: more than one, so that none stays long.
_LOOKED_AT = 4
# What a program, or Python, has one of for all who need it tells nothing, and numbers hardly more
# than it costs to note each of them.
_UNTOLD = frozenset({bool, complex, float, int, range, type(None), type(...), type(NotImplemented)})
_SHARED_TYPES = (Enum, type, FunctionType, BuiltinFunctionType, ModuleType)

Entry = tuple[Any, bool, UUID]
"""A weak reference or the object, whether it is one, and the run."""


def _references(entry: tuple[Any, ...]) -> int:
    """How many references there are to the object of an entry."""
    return sys.getrefcount(entry[0])


_OURS = _references(([],))
"""That many when nobody else has it."""


class Links:
    """The results of the task runs of one flow run, by identity. Any thread may use it."""

    __slots__ = ("_entries", "_lock")

    def __init__(self) -> None:
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, value: object, run_id: UUID) -> None:
        """Note that a task run made an object, and the items in it if it is a collection."""
        is_untold = _is_untold(value)
        if is_untold and not self._entries:
            return
        with self._lock:
            self._let_go()
            if is_untold:
                return
            self._note(value, run_id)
            if isinstance(value, (list, tuple, set, frozenset, dict)):
                items = value.values() if isinstance(value, dict) else value
                if len(items) <= _MOST_ITEMS:
                    for item in items:
                        # Not plain values: they are in many places at once.
                        if type(item) not in PLAIN and not _is_untold(item):
                            self._note(item, run_id)

    def run_of(self, value: object) -> UUID | None:
        """The task run that made this very object, if one did."""
        entry = self._entries.get(id(value))
        if entry is None:
            return None
        held, is_weak, run_id = entry
        return run_id if (held() if is_weak else held) is value else None

    def runs_of(self, arguments: Mapping[str, object]) -> Mapping[str, Sequence[UUID]]:
        """The task runs that made these arguments, by parameter; not what is inside of them."""
        if not self._entries:
            return {}
        found = {name: self.run_of(value) for name, value in arguments.items()}
        return {name: [run_id] for name, run_id in found.items() if run_id is not None}

    def clear(self) -> None:
        """Let everything go: the run is over."""
        with self._lock:
            self._entries.clear()

    def _note(self, value: object, run_id: UUID) -> None:
        try:
            entry: Entry = weakref.ref(value), True, run_id
        except TypeError:
            # Builtin types and those with slots have no room for one.
            entry = value, False, run_id
        self._entries[id(value)] = entry
        self._entries.move_to_end(id(value))
        if len(self._entries) > _MOST_OBJECTS:
            self._entries.popitem(last=False)

    def _let_go(self) -> None:
        """Look at the oldest, and forget those that nobody else has any more."""
        for _ in range(min(_LOOKED_AT, len(self._entries))):
            key = next(iter(self._entries))
            entry = self._entries[key]
            is_gone = entry[0]() is None if entry[1] else _references(entry) <= _OURS
            if is_gone:
                del self._entries[key]
            else:
                self._entries.move_to_end(key)


def _is_untold(value: Any) -> bool:
    """Whether the identity of the object says nothing of where it comes from."""
    kind = type(value)
    if kind in _UNTOLD:
        return True
    if kind is str:
        # Constants of a program that look like names are interned.
        return len(value) <= 1 or value.isidentifier()
    if kind in (bytes, tuple, frozenset):
        return len(value) <= (1 if kind is bytes else 0)
    return isinstance(value, _SHARED_TYPES)

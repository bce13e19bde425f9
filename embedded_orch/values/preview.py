"""A stored value as a short line for people: lists of runs, log lines, error messages.

It is written from the stored text alone. No class is looked up, nothing is unpickled, and what
is no JSON is told by its size. Everything that a terminal would take for a command is escaped.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import msgspec

from embedded_orch.values.fields import MODEL_SLOTS
from embedded_orch.values.known_types import items, mapping, text
from embedded_orch.values.plain import TAG_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from embedded_orch.values.plain import Tree

#: Longer texts are not parsed for one line: their start is shown as it is.
_PARSED_BYTES = 256 * 1024
_MAX_DEPTH = 12
_CUT = "…"


def preview(data: bytes, limit: int = 200) -> str:
    """Return at most `limit` characters that show what a stored value is, as Python writes it."""
    if len(data) > _PARSED_BYTES and data[:1] in (b"[", b"{", b'"'):
        start = data[: 4 * limit].decode(errors="ignore")
        return _cut(_printable(start) + _CUT, limit)
    try:
        line = _Line(limit).shown(msgspec.json.decode(data), 0)
    except (ValueError, RecursionError):
        line = f"<{len(data):,} bytes>"
    return _cut(line, limit)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + _CUT


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


class _Line:
    """Writes trees as one line of about `room` characters, and does not look at the rest."""

    def __init__(self, room: int) -> None:
        self._room = room

    def shown(self, tree: Tree, depth: int) -> str:
        if depth > _MAX_DEPTH:
            return _CUT
        if isinstance(tree, list):
            return f"[{self.listed(tree, depth)}]"
        if isinstance(tree, str):
            return repr(tree[: self._room + 1])
        if not isinstance(tree, dict):
            return repr(tree)
        if len(tree) == 1:
            [(key, payload)] = tree.items()
            if key.startswith(TAG_START):
                return self._tagged(key, payload, depth)
        pairs = (f"{key!r}: {self.shown(item, depth + 1)}" for key, item in tree.items())
        return f"{{{self._joined(pairs)}}}"

    def _tagged(self, tag: str, payload: Tree, depth: int) -> str:
        try:
            return _SHOWN.get(tag, _Line.call(tag[1:]))(self, payload, depth)
        except (ValueError, TypeError):
            return _printable(f"<{tag}, not as it should be>")

    def _joined(self, parts: Iterable[str]) -> str:
        taken: list[str] = []
        room = self._room
        for part in parts:
            if room <= 0:
                taken.append(_CUT)
                break
            taken.append(part)
            room -= len(part) + 2
        return ", ".join(taken)

    def listed(self, payload: Tree, depth: int) -> str:
        return self._joined(self.shown(item, depth + 1) for item in items(payload))

    def tuple(self, payload: Tree, depth: int) -> str:
        comma = "," if len(items(payload)) == 1 else ""
        return f"({self.listed(payload, depth)}{comma})"

    def set(self, payload: Tree, depth: int) -> str:
        return f"{{{self.listed(payload, depth)}}}" if items(payload) else "set()"

    def pairs(self, payload: Tree, depth: int) -> str:
        pairs = (items(pair, 2) for pair in items(payload))
        shown = (f"{self.shown(k, depth + 1)}: {self.shown(v, depth + 1)}" for k, v in pairs)
        return f"{{{self._joined(shown)}}}"

    def record(self, payload: Tree, depth: int) -> str:
        name, fields = items(payload, 2)
        shown = (
            f"{_printable(field)}={self.shown(tree, depth + 1)}"
            for field, tree in mapping(fields).items()
            if field not in MODEL_SLOTS
        )
        return f"{_class_name(name)}({self._joined(shown)})"

    def member(self, payload: Tree, depth: int) -> str:
        name, member = items(payload, 2)
        if isinstance(member, str):
            return f"{_class_name(name)}.{_printable(member)}"
        return f"{_class_name(name)}({self.shown(member, depth)})"

    def text(self, payload: Tree, depth: int) -> str:
        """Show values whose first text says enough: dates, times, numbers."""
        found = items(payload)[0] if isinstance(payload, list) else payload
        return _printable(text(found)[: self._room + 1])

    def path(self, payload: Tree, depth: int) -> str:
        _, path = items(payload, 2)
        return self.shown(path, depth)

    def bytes(self, payload: Tree, depth: int) -> str:
        start = text(payload)[: 4 * (self._room // 3 + 1)]
        return repr(binascii.a2b_base64(start))

    @staticmethod
    def call(name: str) -> Callable[[_Line, Tree, int], str]:
        """Return what shows a tag as a call, for instance ``timedelta(1, 0, 0)``."""

        def shown(line: _Line, payload: Tree, depth: int) -> str:
            several = isinstance(payload, list)
            inside = line.listed(payload, depth) if several else line.shown(payload, depth)
            return f"{_printable(name)}({inside})"

        return shown


def _class_name(name: Tree) -> str:
    return _printable(text(name).rpartition(":")[2].rpartition(".")[2])


_SHOWN: dict[str, Callable[[_Line, Tree, int], str]] = {
    "$tuple": _Line.tuple,
    "$set": _Line.set,
    "$dict": _Line.pairs,
    "$enum": _Line.member,
    "$flag": _Line.member,
    "$dataclass": _Line.record,
    "$attrs": _Line.record,
    "$struct": _Line.record,
    "$namedtuple": _Line.record,
    "$pydantic": _Line.record,
    "$bytes": _Line.bytes,
    "$float": _Line.text,
    "$date": _Line.text,
    "$datetime": _Line.text,
    "$time": _Line.text,
    "$uuid": _Line.text,
    "$path": _Line.path,
}

"""Classes whose instances are not stored, each for another reason."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import msgspec

from tests.values.samples import Pair


class Connection:
    pass


@dataclass(eq=False)
class ByIdentity:
    x: int


class StructByIdentity(msgspec.Struct, eq=False):
    x: int


class StructWithPostInit(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        self.x += 1


deleted: list[int] = []


@dataclass
class WithDel:
    x: int

    def __del__(self) -> None:
        deleted.append(1)


@dataclass
class OnList(list[int]):
    x: int


@dataclass
class OnException(Exception):
    x: int


class Slotted:
    __slots__ = ("cache",)


@dataclass(slots=True)
class OnSlotted(Slotted):
    x: int


class NamedWithState(Pair):
    pass


class Text(str):
    __slots__ = ()


class Moment(dt.datetime):
    pass


class OtherZone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def dst(self, _: dt.datetime | None) -> None:
        return None

    def tzname(self, _: dt.datetime | None) -> str:
        return "other"

"""The records of cache keys in a storage: for those who share it, and not the database.

A record is a small file. It says where the value is, until when it may be used, and of which key it
is. Who finds one has it in the database from then on, as if it had been made there.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch.values.places import answer_of, is_file

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("embedded_orch.engine")

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a storage has of a key.

    Attributes:
        key: the key.
        data: of the value, as a row has it; see ``values/places.py``.
        data_format: how that is encoded.
        expiration: microseconds since 1970 UTC; None: it does not expire.
    """

    key: str
    data: bytes
    data_format: str
    expiration: int | None = None


def find_record(storage: Any, key: str, now: int) -> KeyRecord | None:
    """What is recorded of a key and has not expired; None when that is nothing that can be read.

    Args:
        storage: of the records.
        key: the key.
        now: microseconds since 1970 UTC.
    """
    path = path_of(key)
    try:
        read: Callable[..., Any] = getattr(storage, "read_now", None) or storage.read_path
        content = bytes(answer_of(read(path)))
        found = msgspec.json.decode(content, type=KeyRecord)
    except Exception as error:  # noqa: BLE001 - the storage may be the user's
        # That there is none yet is told in as many ways as there are storages.
        _log.debug("no record of the cache key %s in %r: %s", key, storage, error)
        return None
    if found.key != key or (found.expiration is not None and found.expiration <= now):
        return None
    # Of another database's folder, nobody here knows where it is.
    return None if is_file(found.data_format) else found


def write_record(storage: Any, record: KeyRecord) -> None:
    """Record a key; what was recorded of it is replaced. A storage that cannot is warned about."""
    try:
        write: Callable[..., Any] = getattr(storage, "write_now", None) or storage.write_path
        answer_of(write(path_of(record.key), msgspec.json.encode(record)))
    except Exception as error:  # noqa: BLE001 - the storage may be the user's
        _log.warning(
            "the cache key %s was not recorded in %r, so that it is known in this database alone: "
            "%s: %s",
            record.key,
            storage,
            type(error).__name__,
            error,
        )


def path_of(key: str) -> str:
    """Where the record of a key is: under the key itself, if that is a plain name."""
    if _PLAIN.fullmatch(key):
        return key
    from hashlib import sha256

    return sha256(key.encode(errors="surrogatepass")).hexdigest()

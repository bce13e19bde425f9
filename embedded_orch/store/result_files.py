"""Which files of results may be removed: those that no run and no cached result names.

A file is written before the row that names it, and removed when no row does. These two meet in the
database: a row is written by a transaction that has seen the file there, and a file is removed
inside a transaction that excludes those, and that has seen no row name it. So a file that a row
names is never removed, and at worst one is left that no row names, which the next look finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch.values.places import is_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction
    from embedded_orch.orchestration.values import CachedResult, WrittenFile


def ensure(tx: Transaction, file: WrittenFile) -> None:
    """See to it that a file is there, which this transaction writes a row of."""
    keep_all(tx)
    file.ensure()


def keep_all(tx: Transaction) -> None:
    """Have no file removed while this transaction is open."""
    if tx.dialect == "postgres":
        tx.rows("result_file.shared_lock")


def may_be_removed(tx: Transaction, found: CachedResult) -> bool:
    """Whether a file that is about to be named once more could be removed before it is."""
    if tx.dialect != "postgres" or not is_file(found.data_format):
        return False
    keep_all(tx)
    return True


def exclude_writers(tx: Transaction) -> bool:
    """Whether nobody writes a row of a file, nor can while this transaction is open."""
    return tx.dialect != "postgres" or bool(tx.value("result_file.exclusive_lock"))


def unused(tx: Transaction, names: Sequence[str]) -> list[str]:
    """Those of some files that no row names."""
    rows: list[tuple[Any, ...]] = tx.rows(
        "result_file.unused", names=msgspec.json.encode(list(names)).decode()
    )
    return [name for (name,) in rows]


def named(tx: Transaction) -> list[str]:
    """The files that rows name."""
    return [str(name) for (name,) in tx.rows("result_file.named")]

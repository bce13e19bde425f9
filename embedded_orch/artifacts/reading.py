"""Artifacts as they are stored, found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from embedded_orch import times
from embedded_orch.collections import PAGE, Records, some
from embedded_orch.db.repeating import yes_once_yes
from embedded_orch.engine.effects import Read
from embedded_orch.filters import ArtifactFilters, ArtifactSort, checked, order
from embedded_orch.store import artifacts, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.artifacts import ArtifactRow
    from embedded_orch.store.finding import Cursor


class ArtifactRecord:
    """An artifact as it is stored, as it was when it was read."""

    __slots__ = ("_row",)

    def __init__(self, row: ArtifactRow) -> None:
        self._row = row

    @property
    def id(self) -> UUID:
        """Its id."""
        return self._row.id

    @property
    def key(self) -> str | None:
        """What it is a version of, if of anything."""
        return self._row.key

    @property
    def type(self) -> str | None:
        """``markdown``, ``table``, ``progress``, ``image``, or what its maker said."""
        return self._row.type

    @property
    def description(self) -> str | None:
        """What it is, in words."""
        return self._row.description

    @property
    def data(self) -> Any:
        """What it shows: a text, a number, or a table as JSON text."""
        return self._row.data

    @property
    def metadata_(self) -> dict[str, str] | None:
        """Texts by name, from its maker."""
        return self._row.metadata

    @property
    def flow_run_id(self) -> UUID | None:
        """The flow run that made it."""
        return self._row.flow_run_id

    @property
    def task_run_id(self) -> UUID | None:
        """The task run that made it."""
        return self._row.task_run_id

    @property
    def created(self) -> datetime:
        """When it was made."""
        return times.datetime_from_microseconds(self._row.created)

    @property
    def updated(self) -> datetime:
        """When it was last changed."""
        return times.datetime_from_microseconds(self._row.updated)

    def __repr__(self) -> str:
        return f"<ArtifactRecord {self.type} {self.key or self.id}>"


class Artifacts(Records[ArtifactRecord]):
    """The artifacts of one database."""

    _what: ClassVar[str] = "artifact"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.database)
        self._engine = engine

    def find(
        self,
        *,
        sort: ArtifactSort | str = ArtifactSort.ID_DESC,
        limit: int | None = None,
        **filters: Unpack[ArtifactFilters],
    ) -> Iterator[ArtifactRecord]:
        """The artifacts that fit all filters, read a page at a time as they are taken.

        Args:
            sort: the order; newest first when not given. The others look at every artifact.
            limit: how many at most.
            filters: what the artifacts have to fit; ``is_latest=True`` for one of each key.

        Raises:
            UnknownFilter: there is no such filter or order, or it cannot have this value.
        """
        by = order(self._what, sort, ArtifactSort)
        return some(self._pages(self._checked(filters), by), limit)

    def count(self, **filters: Unpack[ArtifactFilters]) -> int:
        """How many artifacts fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        found = self._checked(filters)
        return self._database.read(lambda tx: finding.count(tx, "artifact", found))

    def delete(self, id: UUID) -> bool:
        """Remove one; the newest of its key is then the one before it. Whether there was one."""
        now = self._engine.process.now()
        return self._database.write(
            yes_once_yes(lambda tx: artifacts.delete_artifact(tx, id=id, now=now))
        )

    def _checked(self, filters: ArtifactFilters) -> Mapping[str, object]:
        return checked(self._what, dict(filters), ArtifactFilters.__annotations__)

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[ArtifactRecord]:
        return [ArtifactRecord(row) for row in artifacts.get_artifacts(tx, ids)]

    def _find(
        self, tx: Transaction, filters: Mapping[str, object], sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        by = finding.NEWEST_FIRST if sort == ArtifactSort.CREATED_DESC else sort
        return finding.find_ids(tx, "artifact", filters, order=by, after=after, limit=PAGE)


def newest(engine: Engine, key: str | None) -> Steps[ArtifactRecord | None]:
    """The steps that find the artifact of a key, or of all, that was made or changed last."""
    filters = {} if key is None else {"keys": [key]}

    def operation(tx: Transaction) -> list[ArtifactRow]:
        ids, _ = finding.find_ids(tx, "artifact", filters, order="UPDATED_DESC", limit=1)
        return artifacts.get_artifacts(tx, ids)

    found: list[ArtifactRow] = yield Read(engine.database, operation)
    return ArtifactRecord(found[0]) if found else None

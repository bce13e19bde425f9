"""The kinds of artifacts, and how each is written."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import TYPE_CHECKING, Any, ClassVar

from embedded_orch import errors
from embedded_orch.artifacts.reading import ArtifactRecord, newest
from embedded_orch.engine.contexts import current_flow_run, current_task_run
from embedded_orch.engine.dispatching import dispatch
from embedded_orch.engine.effects import drive_async
from embedded_orch.engine.fencing import fenced_write
from embedded_orch.orchestrator import current_engine
from embedded_orch.store import artifacts
from embedded_orch.store.artifacts import NewArtifact

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.artifacts import ArtifactRow

    Table = dict[str, list[Any]] | list[dict[str, Any]] | list[list[Any]]

_log = logging.getLogger("embedded_orch.artifacts")
_KEY = re.compile(r"[a-z0-9-]+")


class Artifact:
    """An artifact that can be made, of a type of its own.

    Args:
        type: what kind of thing its data is.
        key: what it is a version of: lower-case letters, digits and dashes.
        description: what it is, in words.
        data: what it shows; stored as JSON text.
        metadata_: texts by name.
        flow_run_id: the flow run it belongs to; the running one when not given.
        task_run_id: the task run it belongs to; the running one when not given.

    Raises:
        ConfigurationError: the key cannot be.
    """

    default_type: ClassVar[str | None] = None

    def __init__(
        self,
        *,
        type: str | None = None,
        key: str | None = None,
        description: str | None = None,
        data: Any = None,
        metadata_: Mapping[str, str] | None = None,
        flow_run_id: UUID | None = None,
        task_run_id: UUID | None = None,
    ) -> None:
        if key is not None and not _KEY.fullmatch(key):
            raise errors.ConfigurationError(
                f"{key!r} cannot be the key of an artifact: give it lower-case letters a to z, "
                f"digits and dashes"
            )
        self.type = type or self.default_type
        self.key = key
        self.description = description
        self.data = data
        self.metadata_ = metadata_
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id

    def formatted(self) -> str | float:
        """What is stored as its data.

        Raises:
            ValueNotStorable: JSON cannot hold it.
        """
        return as_json(self.data, f"the data of artifact {self.key!r}")

    def format(self, *, _sync: bool | None = None) -> Any:
        """What is stored as its data."""
        return dispatch(_value(self), is_sync=_sync)

    def aformat(self) -> Coroutine[Any, Any, str | float]:
        """:meth:`format` in asynchronous code."""
        return drive_async(_value(self))

    def create(self, *, _sync: bool | None = None) -> Any:
        """Store it; the artifact as it is stored."""
        return dispatch(self.creating(current_engine()), is_sync=_sync)

    def acreate(self) -> Coroutine[Any, Any, ArtifactRecord]:
        """:meth:`create` in asynchronous code."""
        return drive_async(self.creating(current_engine()))

    @classmethod
    def get(cls, key: str | None = None, *, _sync: bool | None = None) -> Any:
        """The artifact of a key, or of all, that was made or changed last; None without any."""
        return dispatch(newest(current_engine(), key), is_sync=_sync)

    @classmethod
    def aget(cls, key: str | None = None) -> Coroutine[Any, Any, ArtifactRecord | None]:
        """:meth:`get` in asynchronous code."""
        return drive_async(newest(current_engine(), key))

    @classmethod
    def get_or_create(
        cls,
        key: str | None = None,
        description: str | None = None,
        data: Any = None,
        *,
        _sync: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The artifact of a key, made if there is none, and whether it was made.

        Args:
            key: of the artifact.
            description: of a new one.
            data: of a new one.
            kwargs: what else a new one of this class is made with.
        """
        new = cls(key=key, description=description, data=data, **kwargs)
        return dispatch(new.getting_or_creating(current_engine()), is_sync=_sync)

    @classmethod
    def aget_or_create(
        cls,
        key: str | None = None,
        description: str | None = None,
        data: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, tuple[ArtifactRecord, bool]]:
        """:meth:`get_or_create` in asynchronous code."""
        new = cls(key=key, description=description, data=data, **kwargs)
        return drive_async(new.getting_or_creating(current_engine()))

    def creating(self, engine: Engine) -> Steps[ArtifactRecord]:
        """The steps that store it."""
        task_run, flow_run = current_task_run(), current_flow_run()
        new = NewArtifact(
            id=engine.process.new_id(),
            key=self.key,
            type=self.type,
            description=self.description,
            data=as_json(self.formatted(), f"the data of artifact {self.key!r}"),
            metadata=self.metadata_,
            flow_run_id=self.flow_run_id or (flow_run.run_id if flow_run is not None else None),
            task_run_id=self.task_run_id or (task_run.run_id if task_run is not None else None),
        )
        now = engine.process.now()
        row: ArtifactRow = yield fenced_write(
            engine.database, lambda tx: artifacts.create_artifact(tx, new, now=now)
        )
        return ArtifactRecord(row)

    def getting_or_creating(self, engine: Engine) -> Steps[tuple[ArtifactRecord, bool]]:
        """The steps that find the artifact of its key, or store it."""
        found = yield from newest(engine, self.key)
        if found is not None:
            return found, False
        return (yield from self.creating(engine)), True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key or 'without a key'}>"


class LinkArtifact(Artifact):
    """A link, stored as markdown."""

    default_type: ClassVar[str | None] = "markdown"

    def __init__(self, *, link: str, link_text: str | None = None, **fields: Any) -> None:
        super().__init__(**fields)
        self.link = link
        self.link_text = link_text

    def formatted(self) -> str:
        """The link as markdown."""
        return f"[{self.link_text or self.link}]({self.link})"


class MarkdownArtifact(Artifact):
    """A text in markdown."""

    default_type: ClassVar[str | None] = "markdown"

    def __init__(self, *, markdown: str, **fields: Any) -> None:
        super().__init__(**fields)
        self.markdown = markdown

    def formatted(self) -> str:
        """The text."""
        return self.markdown


class TableArtifact(Artifact):
    """A table: columns by name, or rows."""

    default_type: ClassVar[str | None] = "table"

    def __init__(self, *, table: Table, **fields: Any) -> None:
        super().__init__(**fields)
        self.table = table

    def formatted(self) -> str:
        """The table as JSON text, with null for what is no number."""
        return as_json(_without_nan(self.table), f"table {self.key!r}")


class ProgressArtifact(Artifact):
    """How far something has come, in percent."""

    default_type: ClassVar[str | None] = "progress"

    def __init__(self, *, progress: float, **fields: Any) -> None:
        super().__init__(**fields)
        self.progress = progress

    def formatted(self) -> float:
        """The progress, kept between 0 and 100."""
        kept = max(0.0, min(float(self.progress), 100.0))
        if not 0 <= self.progress <= 100:  # noqa: PLR2004 - percent
            _log.warning("a progress of %s %% was taken as %s %%", self.progress, kept)
            self.progress = kept
        return kept


class ImageArtifact(Artifact):
    """An image, by its URL."""

    default_type: ClassVar[str | None] = "image"

    def __init__(self, *, image_url: str, **fields: Any) -> None:
        super().__init__(**fields)
        self.image_url = image_url

    def formatted(self) -> str:
        """The URL."""
        return self.image_url


def _value(artifact: Artifact) -> Steps[str | float]:
    yield from ()
    return artifact.formatted()


def as_json(value: object, what: str) -> str:
    """A value as JSON text.

    Raises:
        ValueNotStorable: JSON cannot hold it.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.ValueNotStorable(f"{what} cannot be written as JSON: {error}") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

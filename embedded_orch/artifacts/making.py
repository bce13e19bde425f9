"""Functions that make artifacts, in plain and in asynchronous code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.artifacts.kinds import (
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
    as_json,
)
from embedded_orch.engine.dispatching import dispatch
from embedded_orch.engine.effects import drive_async
from embedded_orch.engine.fencing import fenced_write
from embedded_orch.orchestrator import current_engine
from embedded_orch.store import artifacts

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from uuid import UUID

    from embedded_orch.artifacts.kinds import Artifact, Table
    from embedded_orch.engine.effects import Steps


def create_link_artifact(
    link: str,
    link_text: str | None = None,
    key: str | None = None,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Make a link; its id.

    Args:
        link: where it leads.
        link_text: what is shown; the link when not given.
        key: what it is a version of.
        description: what it is, in words.
    """
    made = LinkArtifact(link=link, link_text=link_text, key=key, description=description)
    return dispatch(_making(made), is_sync=_sync)


def acreate_link_artifact(
    link: str,
    link_text: str | None = None,
    key: str | None = None,
    description: str | None = None,
) -> Coroutine[Any, Any, UUID]:
    """:func:`create_link_artifact` in asynchronous code."""
    made = LinkArtifact(link=link, link_text=link_text, key=key, description=description)
    return drive_async(_making(made))


def create_markdown_artifact(
    markdown: str,
    key: str | None = None,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Make a text; its id.

    Args:
        markdown: the text.
        key: what it is a version of.
        description: what it is, in words.
    """
    made = MarkdownArtifact(markdown=markdown, key=key, description=description)
    return dispatch(_making(made), is_sync=_sync)


def acreate_markdown_artifact(
    markdown: str, key: str | None = None, description: str | None = None
) -> Coroutine[Any, Any, UUID]:
    """:func:`create_markdown_artifact` in asynchronous code."""
    made = MarkdownArtifact(markdown=markdown, key=key, description=description)
    return drive_async(_making(made))


def create_table_artifact(
    table: Table,
    key: str | None = None,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Make a table; its id.

    Args:
        table: columns by name, or rows.
        key: what it is a version of.
        description: what it is, in words.
    """
    made = TableArtifact(table=table, key=key, description=description)
    return dispatch(_making(made), is_sync=_sync)


def acreate_table_artifact(
    table: Table, key: str | None = None, description: str | None = None
) -> Coroutine[Any, Any, UUID]:
    """:func:`create_table_artifact` in asynchronous code."""
    made = TableArtifact(table=table, key=key, description=description)
    return drive_async(_making(made))


def create_progress_artifact(
    progress: float,
    key: str | None = None,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Make a progress; its id, by which it is updated.

    Args:
        progress: percent, from 0 to 100.
        key: what it is a version of.
        description: what it is, in words.
    """
    made = ProgressArtifact(progress=progress, key=key, description=description)
    return dispatch(_making(made), is_sync=_sync)


def acreate_progress_artifact(
    progress: float, key: str | None = None, description: str | None = None
) -> Coroutine[Any, Any, UUID]:
    """:func:`create_progress_artifact` in asynchronous code."""
    made = ProgressArtifact(progress=progress, key=key, description=description)
    return drive_async(_making(made))


def update_progress_artifact(
    artifact_id: UUID,
    progress: float,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Say how far it has come by now; its id.

    Args:
        artifact_id: of the progress.
        progress: percent, from 0 to 100.
        description: what it is, in words; as it was when not given.

    Raises:
        RunNotFound: there is no such artifact.
    """
    return dispatch(_updating(artifact_id, progress, description), is_sync=_sync)


def aupdate_progress_artifact(
    artifact_id: UUID, progress: float, description: str | None = None
) -> Coroutine[Any, Any, UUID]:
    """:func:`update_progress_artifact` in asynchronous code."""
    return drive_async(_updating(artifact_id, progress, description))


def create_image_artifact(
    image_url: str,
    key: str | None = None,
    description: str | None = None,
    *,
    _sync: bool | None = None,
) -> Any:
    """Make an image; its id.

    Args:
        image_url: where it is.
        key: what it is a version of.
        description: what it is, in words.
    """
    made = ImageArtifact(image_url=image_url, key=key, description=description)
    return dispatch(_making(made), is_sync=_sync)


def acreate_image_artifact(
    image_url: str, key: str | None = None, description: str | None = None
) -> Coroutine[Any, Any, UUID]:
    """:func:`create_image_artifact` in asynchronous code."""
    made = ImageArtifact(image_url=image_url, key=key, description=description)
    return drive_async(_making(made))


def _making(artifact: Artifact) -> Steps[UUID]:
    made = yield from artifact.creating(current_engine())
    return made.id


def _updating(artifact_id: UUID, progress: float, description: str | None) -> Steps[UUID]:
    engine = current_engine()
    data = as_json(ProgressArtifact(progress=progress).formatted(), "a progress")
    now = engine.process.now()
    was_there: bool = yield fenced_write(
        engine.database,
        lambda tx: artifacts.update_artifact(
            tx, id=artifact_id, data=data, description=description, now=now
        ),
    )
    if not was_there:
        raise errors.RunNotFound(f"no artifact has the id {artifact_id} in {engine.database.url}")
    return artifact_id

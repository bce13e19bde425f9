"""Artifacts: what a run shows to people, beside its result: texts, tables, links, progress, images.

Each function returns what it says in plain code, and in asynchronous code a coroutine; the one
whose name begins with ``a`` always returns a coroutine. An artifact knows the runs it was made in.
Those of one key are versions of one thing.
"""

from __future__ import annotations

from embedded_orch.artifacts.kinds import (
    Artifact,
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
)
from embedded_orch.artifacts.making import (
    acreate_image_artifact,
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from embedded_orch.artifacts.reading import ArtifactRecord, Artifacts

__all__ = [
    "Artifact",
    "ArtifactRecord",
    "Artifacts",
    "ImageArtifact",
    "LinkArtifact",
    "MarkdownArtifact",
    "ProgressArtifact",
    "TableArtifact",
    "acreate_image_artifact",
    "acreate_link_artifact",
    "acreate_markdown_artifact",
    "acreate_progress_artifact",
    "acreate_table_artifact",
    "aupdate_progress_artifact",
    "create_image_artifact",
    "create_link_artifact",
    "create_markdown_artifact",
    "create_progress_artifact",
    "create_table_artifact",
    "update_progress_artifact",
]

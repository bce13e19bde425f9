"""Which call of a task a record belongs to."""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING

from embedded_orch.values.hashing import hasher

if TYPE_CHECKING:
    from uuid import UUID

# 2^-40 for one collision among a million calls.
_DIGEST_BYTES = 12


def position_key(parent: UUID | None, number: int) -> str:
    """Which call of a task a record belongs to, where its place says so and not its inputs."""
    return f"at-{number}" if parent is None else f"at-{number}-{parent.hex}"


def digest_key(digest: bytes, occurrence: int) -> str:
    """Which call of a task a record belongs to: its digest, and which of the equal ones.

    The schema knows by the first character that the task is part of it. It is in two trees of the
    database for each task run, so it is short.
    """
    text = "~" + b2a_base64(digest, newline=False).decode()
    return text if occurrence == 0 else f"{text}-{occurrence}"


def call_digest(parent: UUID | None, task_key: str, inputs: bytes) -> bytes:
    """What equal calls have in common: their parent task run, task and inputs.

    The source of the task is not part of it: the fix that lets a half-done run finish must not
    throw away what is done. Inputs that cannot be hashed count by their type.

    Args:
        parent: the task run that makes the call, if any.
        task_key: of the task.
        inputs: their hash.
    """
    digest = hasher()(inputs, digest_size=_DIGEST_BYTES)
    digest.update(task_key.encode())
    if parent is not None:
        digest.update(parent.bytes)
    return digest.digest()

"""What runs leave behind, as the client reads it: log lines, artifacts, variables, inputs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from embedded_orch.client.schemas.parts import asked_by
from embedded_orch.db.repeating import yes_once_yes
from embedded_orch.engine.effects import drive
from embedded_orch.engine.exchange import value_of, write_input
from embedded_orch.engine.pausing import resume
from embedded_orch.errors import RunNotFound
from embedded_orch.filters import ArtifactSort
from embedded_orch.input.actions import recorded
from embedded_orch.logs import LogSort
from embedded_orch.store import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from embedded_orch.artifacts.reading import ArtifactRecord
    from embedded_orch.client.schemas.record_filters import (
        ArtifactCollectionFilter,
        ArtifactFilter,
        LogFilter,
    )
    from embedded_orch.input.actions import FlowRunInput
    from embedded_orch.logs import LogLine
    from embedded_orch.orchestrator import Orchestrator
    from embedded_orch.variables import VariableRecord

R = TypeVar("R")

# As many as Prefect's server gives in one answer.
_PAGE = 200


class RecordsOfRuns:
    """The part of a client that is about what runs leave behind.

    Args:
        orchestrator: whose runs.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    def read_logs(
        self,
        log_filter: LogFilter | None = None,
        limit: int | None = None,
        offset: int | None = None,
        sort: LogSort = LogSort.TIMESTAMP_ASC,
    ) -> list[LogLine]:
        """Log lines that fit, oldest first, 200 when no limit is given."""
        found = self._orchestrator.logs.find(sort=sort, **asked_by(log_filter))
        return page(found, limit, offset)

    def read_artifacts(
        self,
        *,
        artifact_filter: ArtifactFilter | None = None,
        sort: ArtifactSort | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ArtifactRecord]:
        """Artifacts that fit, newest first, 200 when no limit is given."""
        found = self._orchestrator.artifacts.find(
            sort=sort or ArtifactSort.ID_DESC, **asked_by(artifact_filter)
        )
        return page(found, limit, offset)

    def read_latest_artifacts(
        self,
        *,
        artifact_filter: ArtifactCollectionFilter | None = None,
        sort: ArtifactSort | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ArtifactRecord]:
        """The newest artifact of each key that fits, 200 when no limit is given."""
        found = self._orchestrator.artifacts.find(
            sort=sort or ArtifactSort.ID_DESC, is_latest=True, **asked_by(artifact_filter)
        )
        return page(found, limit, offset)

    def delete_artifact(self, artifact_id: UUID) -> None:
        """Remove an artifact.

        Raises:
            RunNotFound: none has this id.
        """
        if not self._orchestrator.artifacts.delete(artifact_id):
            raise RunNotFound(f"no artifact has the id {artifact_id} in {self._orchestrator.url}")

    def read_variables(self, limit: int | None = None) -> list[VariableRecord]:
        """Variables, by name, 200 when no limit is given."""
        return page(self._orchestrator.variables.find(), limit, None)

    def read_variable_by_name(self, name: str) -> VariableRecord | None:
        """The variable of this name; None when there is none."""
        return next(self._orchestrator.variables.find(name=name), None)

    def delete_variable_by_name(self, name: str) -> None:
        """Remove a variable.

        Raises:
            RunNotFound: there is none of this name.
        """
        if not self._orchestrator.variables.unset(name):
            raise RunNotFound(f"no variable is called {name!r} in {self._orchestrator.url}")

    # -- inputs of flow runs ---------------------------------------------------------------------

    def resume_flow_run(
        self, flow_run_id: UUID, run_input: Mapping[str, Any] | None = None
    ) -> None:
        """Let a paused flow run go on; see :func:`embedded_orch.resume_flow_run`."""
        drive(resume(self._orchestrator.engine, flow_run_id, run_input))

    def create_flow_run_input(
        self, flow_run_id: UUID, key: str, value: Any, sender: str | None = None
    ) -> None:
        """Write an input of a flow run; see :func:`embedded_orch.input.create_flow_run_input`."""
        drive(write_input(self._orchestrator.engine, flow_run_id, key, value, sender))

    def read_flow_run_input(self, flow_run_id: UUID, key: str) -> Any:
        """The value of an input.

        Raises:
            RunNotFound: the run has none under this key.
        """
        row = self._orchestrator.database.read(
            lambda tx: inputs.read_input(tx, flow_run_id=flow_run_id, key=key)
        )
        if row is None:
            raise RunNotFound(f"flow run {flow_run_id} has no input with the key {key!r}")
        return value_of(row)

    def filter_flow_run_input(
        self, flow_run_id: UUID, key_prefix: str, limit: int, exclude_keys: Iterable[str]
    ) -> list[FlowRunInput]:
        """The inputs of a run whose keys begin alike, oldest first."""
        rows = self._orchestrator.database.read(
            lambda tx: inputs.inputs_with_prefix(
                tx,
                flow_run_id=flow_run_id,
                prefix=key_prefix,
                exclude_keys=exclude_keys,
                limit=limit,
            )
        )
        return [recorded(row, flow_run_id) for row in rows]

    def delete_flow_run_input(self, flow_run_id: UUID, key: str) -> None:
        """Remove an input.

        Raises:
            RunNotFound: the run has none under this key.
        """
        if not self._orchestrator.database.write(
            yes_once_yes(lambda tx: inputs.delete_input(tx, flow_run_id=flow_run_id, key=key))
        ):
            raise RunNotFound(f"flow run {flow_run_id} has no input with the key {key!r}")


def page(found: Iterable[R], limit: int | None, offset: int | None) -> list[R]:
    """As many as Prefect's server gives in one answer, or as asked for."""
    start, most = offset or 0, _PAGE if limit is None else limit
    return list(islice(found, start, start + most))

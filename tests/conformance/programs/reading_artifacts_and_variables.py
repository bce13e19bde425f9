"""Artifacts and variables are read back, by their keys and names."""

import asyncio

from embedded_orch import flow, get_client
from embedded_orch.artifacts import Artifact, create_markdown_artifact, create_table_artifact
from embedded_orch.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from embedded_orch.variables import Variable


@flow
def report():
    create_markdown_artifact("# one", key="report")
    create_markdown_artifact("# two", key="report")
    create_table_artifact([{"a": 1}], key="rows")


async def main():
    async with get_client() as client:
        by_key = ArtifactFilter(key=ArtifactFilterKey(any_=["report"]))
        found = await client.read_artifacts(artifact_filter=by_key)
        assert sorted(each.data for each in found) == ["# one", "# two"]
        latest = await client.read_latest_artifacts()
        assert sorted(each.key for each in latest) == ["report", "rows"]
        variable = await client.read_variable_by_name("limit")
        assert variable.value == 10
        assert await client.read_variable_by_name("none") is None


report()
assert Artifact.get("report").data == "# two"
Variable.set("limit", 10)
asyncio.run(main())

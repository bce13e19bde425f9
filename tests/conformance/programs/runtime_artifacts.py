"""A run leaves artifacts, and the latest of a key is found."""

from embedded_orch import flow
from embedded_orch.artifacts import Artifact, create_markdown_artifact, create_table_artifact


@flow
def report(number):
    create_markdown_artifact(f"# Report {number}", key="report", description="for people")
    create_table_artifact([{"n": number}], key="rows")


report(1)
report(2)
assert Artifact.get("report").data == "# Report 2"

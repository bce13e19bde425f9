"""The parameters of a flow are told as a JSON Schema."""

from embedded_orch import flow


@flow
def load(path: str, limit: int = 10):
    """Loads a file."""


schema = load.parameters
assert list(schema.properties) == ["path", "limit"]
assert schema.required == ["path"]
assert schema.properties["limit"]["default"] == 10
assert load.description == "Loads a file."

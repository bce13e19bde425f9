"""What a flow prints is logged when it asks for that."""

from embedded_orch import flow
from embedded_orch.orchestrator import registry


@flow(log_prints=True)
def run():
    print("hello", "there")


run()
assert "hello there" in [line.message for line in registry.current().logs.find()]

"""What a run logs is kept with it."""

from embedded_orch import flow, get_run_logger, task
from embedded_orch.orchestrator import registry


@task
def load():
    get_run_logger().warning("only %d rows", 3)


@flow
def run():
    get_run_logger().info("beginning")
    load()


run()
messages = [line.message for line in registry.current().logs.find()]
assert "beginning" in messages and "only 3 rows" in messages

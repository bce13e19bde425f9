"""A task's own SQL commits with its completion."""

from embedded_orch import flow, task
from embedded_orch.context import get_run_context
from embedded_orch.orchestrator import registry

orch = registry.current()
with orch.session() as session:
    session.execute("create table booking (amount integer)")


@task
def book(amount):
    connection = get_run_context().transaction.connection
    connection.execute("insert into booking values (:amount)", {"amount": amount})
    if amount < 0:
        raise ValueError("negative")


@flow
def run():
    book(5)
    book(-1, return_state=True)


run(return_state=True)
assert [row[0] for row in orch.sql("select amount from booking")] == [5]

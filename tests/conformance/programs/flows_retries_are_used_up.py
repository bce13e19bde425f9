"""After the last retry the exception is raised."""

from embedded_orch import flow

calls = []


@flow(retries=1)
def report():
    calls.append(1)
    raise RuntimeError(f"call {len(calls)}")


try:
    report()
except RuntimeError as error:
    assert str(error) == "call 2"
assert len(calls) == 2

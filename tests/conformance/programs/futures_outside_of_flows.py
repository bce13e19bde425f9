"""submit() needs a flow."""

from embedded_orch import task


@task
def one():
    return 1


try:
    one.submit()
except RuntimeError as error:
    assert "one" in str(error)
else:
    raise AssertionError("it was submitted")

"""A limit that does not exist lets through, unless it is to be strict."""

from embedded_orch import flow
from embedded_orch.concurrency.sync import concurrency


@flow
def run():
    with concurrency("no-such-limit"):
        went_through = True
    try:
        with concurrency("no-such-limit", strict=True):
            raise AssertionError("it let through")
    except Exception as error:
        assert "no-such-limit" in str(error)
    return went_through


assert run() is True

"""Arguments that do not fit the signature are an error like Python's own."""

from embedded_orch import flow
from embedded_orch.exceptions import SignatureMismatchError


@flow
def load(path, *, limit=1):
    return path, limit


for call in (lambda: load(), lambda: load("a", "b"), lambda: load("a", other=1)):
    try:
        call()
    except (SignatureMismatchError, TypeError):
        continue
    raise AssertionError("it was called")
assert load("a", limit=2) == ("a", 2)

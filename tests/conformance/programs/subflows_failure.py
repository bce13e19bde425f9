"""A failed child raises in its parent, unless its state is asked for."""

from embedded_orch import flow


@flow
def child():
    raise ValueError("child")


@flow
def careful():
    return child(return_state=True).is_failed()


@flow
def careless():
    child()


assert careful() is True
assert careless(return_state=True).is_failed()

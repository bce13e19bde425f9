"""with_options gives a flow like it with other options."""

from embedded_orch import flow


@flow(name="first", retries=3)
def load():
    return 1


other = load.with_options(name="second", description="the other one")
assert (load.name, load.retries) == ("first", 3)
assert (other.name, other.retries, other.description) == ("second", 3, "the other one")
assert other() == 1

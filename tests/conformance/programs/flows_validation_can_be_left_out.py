"""validate_parameters=False hands on what was given."""

from embedded_orch import flow


@flow(validate_parameters=False)
def load(limit: int):
    return limit


assert load("many") == "many"

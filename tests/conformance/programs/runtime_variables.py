"""Variables are kept between runs."""

from embedded_orch import flow
from embedded_orch.variables import Variable


@flow
def run():
    return Variable.get("region", default="nowhere")


assert run() == "nowhere"
Variable.set("region", "eu")
assert run() == "eu"
Variable.set("region", {"name": "us"}, overwrite=True)
assert run() == {"name": "us"}
Variable.unset("region")
assert Variable.get("region") is None

"""A hook that fails changes nothing."""

from embedded_orch import flow


def boom(flow, flow_run, state):
    raise RuntimeError("boom")


@flow(on_completion=[boom])
def run():
    return 1


assert run() == 1
assert run(return_state=True).is_completed()

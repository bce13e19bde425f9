"""A copy with other options has hooks of its own where it is given some."""

from embedded_orch import flow

called = []


@flow(on_completion=[lambda flow, run, state: called.append("old")])
def work():
    return 1


other = work.with_options(name="other", on_completion=[lambda *_: called.append("new")])

work()
other()
work.with_options(name="third")()

assert called == ["old", "new", "old"]

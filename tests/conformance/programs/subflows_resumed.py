"""A parent that is resumed finds its children again."""

from embedded_orch import flow, get_client, task

done, is_broken = [], [True]


@task
def step(name):
    done.append(name)


@flow
def child(name):
    step(name)
    return name


@flow
def parent():
    child("a")
    if is_broken[0]:
        raise RuntimeError("later")
    return child("b")


parent(return_state=True)
is_broken[0] = False
with get_client(sync_client=True) as client:
    run = next(run for run in client.read_flow_runs() if run.flow_name == "parent")
assert parent.resume(run.id) == "b"
assert done == ["a", "b"]

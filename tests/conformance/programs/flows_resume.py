"""A run that failed is resumed: what completed is not done again."""

from embedded_orch import flow, get_client, task

done = []
is_broken = [True]


@task
def step(number):
    done.append(number)
    return number


@flow
def job():
    first = step(1)
    if is_broken[0]:
        raise RuntimeError("at 3 a.m.")
    return first + step(2)


try:
    job()
except RuntimeError:
    is_broken[0] = False
with get_client(sync_client=True) as client:
    run = client.read_flow_runs(limit=1)[0]
assert job.resume(run.id) == 3
assert done == [1, 2]

"""What a hook is given: the flow or task, the run, and the state that was stored."""

from embedded_orch import flow, task

seen = []


def note(subject, run, state):
    seen.append((subject.name, run.id, state.name, state.type.value))


@task(on_completion=[note])
def load():
    return 1


@flow(on_running=[note], on_completion=[note])
def etl():
    return load()


assert etl() == 1
names = [(name, state) for name, _, state, _ in seen]
assert names == [("etl", "Running"), ("load", "Completed"), ("etl", "Completed")]
assert seen[0][1] == seen[2][1] != seen[1][1]
assert [kind for *_, kind in seen] == ["RUNNING", "COMPLETED", "COMPLETED"]

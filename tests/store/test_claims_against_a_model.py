"""Claims from pools of any shape, compared with a model of them in plain Python.

The model says what section 4 of the specification says, step by step and without a thought to what
it costs: slots of the pool, slots of each queue, the candidates of each queue, those of the pool.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from embedded_orch.orchestration.values import Policy
from embedded_orch.states import StateType
from embedded_orch.store.claims import NewRun
from tests.builders import NOON, SECOND, Builder

HELD = (StateType.PENDING, StateType.RUNNING)


class AQueue(NamedTuple):
    """How a queue is made, in this order; a priority of None is left out."""

    priority: int | None
    limit: int | None
    is_paused: bool


class ARun(NamedTuple):
    """A run: its queue by number, when it is due after noon, and what it is doing."""

    queue: int
    due: int
    state: StateType
    retry_type: str | None


class Ask(NamedTuple):
    """What a claim asks for; queues by number."""

    limit: int
    after: int | None
    before: int | None
    queues: frozenset[int] | None


class Shape(NamedTuple):
    """A pool, what is in it, and the claims that are made one after the other."""

    limit: int | None
    is_paused: bool
    queues: list[AQueue]
    runs: list[ARun]
    asks: list[Ask]


class ModelRun:
    """A run in the model."""

    def __init__(self, id: UUID, run: ARun) -> None:
        self.id = id
        self.queue = run.queue
        self.due = run.due
        self.state = run.state
        self.retry_type = run.retry_type


limits = st.sampled_from([None, None, None, 0, 1, 2, 3, 5])
seconds = st.integers(-3, 3)
bounds = st.sampled_from([None, None, None, -2, -1, 0, 1, 2])
rarely = st.sampled_from([*[False] * 7, True])


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Pools with up to four queues and sixteen runs, and two claims."""
    queues = draw(
        st.lists(
            st.builds(AQueue, st.none() | st.integers(1, 4), limits, rarely),
            min_size=2,
            max_size=4,
        )
    )
    numbers = st.integers(0, len(queues) - 1)
    states = st.sampled_from(
        [*[StateType.SCHEDULED] * 6, *HELD, StateType.CANCELLING, StateType.COMPLETED]
    )
    retry_types = st.sampled_from([None, None, None, "in_process", "reschedule"])
    runs = st.lists(st.builds(ARun, numbers, seconds, states, retry_types), min_size=8, max_size=16)
    names = st.none() | st.frozensets(numbers, min_size=1)
    asks = st.builds(Ask, st.integers(3, 8), bounds, bounds, names)
    return Shape(
        draw(limits), draw(rarely), queues, draw(runs), draw(st.lists(asks, min_size=2, max_size=2))
    )


def model_priorities(queues: list[AQueue]) -> list[int]:
    """The priority of each queue once all are made, beside the pool's own default queue."""
    taken = {-1: 1}
    for number, queue in enumerate(queues):
        wanted = queue.priority
        if wanted is None:
            wanted = next(each for each in range(1, 99) if each not in taken.values())
        last = wanted
        while last in taken.values():
            last += 1
        for other, priority in taken.items():
            if wanted <= priority < last:
                taken[other] = priority + 1
        taken[number] = wanted
    return [taken[number] for number in range(len(queues))]


def model_claim(shape: Shape, priorities: list[int], runs: list[ModelRun], ask: Ask) -> list[UUID]:
    """What a claim takes; it is PENDING afterwards."""
    if shape.is_paused:
        return []
    held = [run.queue for run in runs if run.state in HELD]
    candidates: list[ModelRun] = []
    for number, queue in enumerate(shape.queues):
        if queue.is_paused or (ask.queues is not None and number not in ask.queues):
            continue
        fitting = sorted(
            (
                run
                for run in runs
                if run.queue == number
                and run.state is StateType.SCHEDULED
                and run.retry_type != "in_process"
                and (ask.after is None or run.due >= ask.after)
                and (ask.before is None or run.due <= ask.before)
            ),
            key=lambda run: (run.due, run.id),
        )
        slots = None if queue.limit is None else max(0, queue.limit - held.count(number))
        candidates += fitting[:slots]
    candidates.sort(key=lambda run: (priorities[run.queue], run.due, run.id))
    slots = None if shape.limit is None else max(0, shape.limit - len(held))
    taken = candidates[:slots][: ask.limit]
    for run in taken:
        run.state = StateType.PENDING
    return [run.id for run in taken]


def make(build: Builder, shape: Shape, name: str) -> list[ModelRun]:
    """The shape in the database, and its runs in the model."""
    build.pool(name, concurrency_limit=shape.limit, is_paused=shape.is_paused)
    queues = [
        build.queue(
            f"queue-{number}",
            name,
            concurrency_limit=queue.limit,
            is_paused=queue.is_paused,
            **({} if queue.priority is None else {"priority": queue.priority}),
        )
        for number, queue in enumerate(shape.queues)
    ]
    flow_id = build.flow()
    runs: list[NewRun] = [
        build.new_run(
            flow_id,
            work_queue_id=queues[run.queue].id,
            scheduled_time=NOON + run.due * SECOND,
            empirical_policy=Policy(retry_type=run.retry_type),
        )
        for run in shape.runs
    ]
    build.enqueue(runs)
    for new, run in zip(runs, shape.runs, strict=True):
        if run.state is not StateType.SCHEDULED:
            build.set_state(new.id, run.state, now=NOON + 60 * SECOND)
    return [ModelRun(new.id, run) for new, run in zip(runs, shape.runs, strict=True)]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    # A new pool is made for each example in one database.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(shape=shapes())
def test_a_claim_takes_what_the_model_takes(build: Builder, shape: Shape) -> None:
    name = f"pool-{build.process.new_id()}"
    runs = make(build, shape, name)
    priorities = model_priorities(shape.queues)

    for ask in shape.asks:
        queue_names = (
            None if ask.queues is None else [f"queue-{number}" for number in sorted(ask.queues)]
        )
        claimed = build.claim(
            ask.limit,
            name,
            queue_names=queue_names,
            scheduled_after=None if ask.after is None else NOON + ask.after * SECOND,
            scheduled_before=None if ask.before is None else NOON + ask.before * SECOND,
        )

        assert [run.id for run in claimed] == model_claim(shape, priorities, runs, ask)

"""Which record a call finds, and what is told of the rest, against a plain model.

The model knows a run as the list of its calls: of which task, by which caller, with which input. By
inputs, the nth of equal calls finds the nth of the equal ones on record; by position, the nth call
of a task by a caller finds the nth one. It knows nothing of digests, ids and threads.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_orch.engine.identity import call_digest, digest_key
from embedded_orch.engine.read_ahead import RecordedValues
from embedded_orch.engine.records import Records
from embedded_orch.errors import RunChanged
from embedded_orch.store.task_runs import RecordedCall
from embedded_orch.values import hash_inputs
from tests.engine.test_identity import a_task, an_attempt, load, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.specs import TaskSpec

CALLER = UUID(int=1)


class Call(NamedTuple):
    """What the code of a run calls."""

    task: str
    caller: UUID | None
    input: int


TASKS = {"load": a_task(load), "store": a_task(store)}

CALLS = st.builds(
    Call,
    st.sampled_from(list(TASKS)),
    st.sampled_from([None, CALLER]),
    st.integers(0, 2),
)
# Each call and whether it completed; what did not even begin is not on record.
RECORDED = st.lists(st.tuples(CALLS, st.sampled_from(["COMPLETED", "CRASHED", None])), max_size=8)


def key_of(context: FlowRunContext, spec: TaskSpec, call: Call) -> str:
    digest = call_digest(call.caller, spec.key, hash_inputs({"x": call.input}))
    occurrence = context.occurrences.next_of(digest)
    assert occurrence is not None
    return digest_key(digest, occurrence)


def on_record(calls: Sequence[tuple[Call, str | None]]) -> list[RecordedCall]:
    """What a run that made these calls has on record."""
    context = an_attempt()
    found = []
    for place, (call, state) in enumerate(calls):
        spec = TASKS[call.task]
        number = context.next_number(spec, call.caller)
        key = key_of(context, spec, call)
        if state is not None:
            found.append(
                RecordedCall(
                    id=UUID(int=100 + place),
                    parent_id=call.caller,
                    task_key=spec.key,
                    dynamic_key=key,
                    call_number=number,
                    state_type=state,
                    state_name=state,
                    source_hash="s",
                    name=f"{call.task}-{place}",
                    run_count=1,
                )
            )
    return found


class Attempt:
    """An attempt that makes calls, and what it finds."""

    def __init__(
        self, recorded: Sequence[tuple[Call, str | None]], match: Any, on_change: Any = "keep"
    ) -> None:
        self.context = an_attempt()
        self.told: list[str] = []
        self.records = Records(
            on_record(recorded),
            values=RecordedValues(UUID(int=1)),
            match=match,
            on_change=on_change,
            run="a run",
            tell=self.told.append,
            made=self.context.calls_made,
        )

    def make(self, calls: Sequence[Call], order: Sequence[int]) -> list[int | None]:
        """Make calls, which threads bring in an order; the places of the records that they find."""
        numbers = [self.context.next_number(TASKS[call.task], call.caller) for call in calls]
        found: list[int | None] = [None] * len(calls)
        for place in order:
            call = calls[place]
            spec = TASKS[call.task]
            record = self.records.find(
                spec.key,
                call.caller,
                key=key_of(self.context, spec, call),
                number=numbers[place],
                source_hash="s",
                name=f"new {place}",
            )
            found[place] = None if record is None else record.id.int - 100
        return found


@settings(deadline=None)
@given(RECORDED, st.lists(CALLS, max_size=8), st.randoms(use_true_random=False))
def test_equal_calls_share_what_is_on_record_of_them_in_whatever_order_they_come(
    recorded: list[tuple[Call, str | None]], calls: list[Call], random: Any
) -> None:
    order = list(range(len(calls)))
    random.shuffle(order)

    found = Attempt(recorded, "inputs").make(calls, order)

    of_each: dict[Call, list[int | None]] = {}
    for place, (call, state) in enumerate(recorded):
        of_each.setdefault(call, []).append(None if state is None else place)
    for call, count in Counter(calls).items():
        places = [found[place] for place, each in enumerate(calls) if each == call]
        expected = [*of_each.get(call, ()), *[None] * count][:count]
        assert sorted(places, key=str) == sorted(expected, key=str)
    taken = [place for place in found if place is not None]
    assert len(set(taken)) == len(taken)


@settings(deadline=None)
@given(RECORDED, st.lists(CALLS, max_size=8), st.randoms(use_true_random=False))
def test_by_position_each_call_finds_the_one_at_its_place(
    recorded: list[tuple[Call, str | None]], calls: list[Call], random: Any
) -> None:
    order = list(range(len(calls)))
    random.shuffle(order)

    found = Attempt(recorded, "position").make(calls, order)

    at: dict[tuple[str, UUID | None], list[int | None]] = {}
    for place, (call, state) in enumerate(recorded):
        at.setdefault((call.task, call.caller), []).append(None if state is None else place)
    for place, call in enumerate(calls):
        there = at.get((call.task, call.caller), [])
        assert found[place] == (there.pop(0) if there else None)


@settings(deadline=None)
@given(RECORDED, st.lists(CALLS, max_size=8), st.randoms(use_true_random=False))
def test_what_nobody_asks_for_is_told_and_nothing_else(
    recorded: list[tuple[Call, str | None]], calls: list[Call], random: Any
) -> None:
    """Of the flow's own calls; those of a caller that was not run again are nobody's to ask for."""
    order = list(range(len(calls)))
    random.shuffle(order)
    attempt = Attempt(recorded, "inputs")
    found = attempt.make(calls, order)

    attempt.records.end(has_failed=False)

    unused = {
        (call.task, place)
        for place, (call, state) in enumerate(recorded)
        if state == "COMPLETED" and call.caller is None and place not in found
    }
    told = {}
    for line in attempt.told:
        [task] = [name for name, spec in TASKS.items() if f"calls of {spec.key} " in line]
        told[task] = line
    assert told.keys() == {task for task, _ in unused}
    assert len(attempt.told) == len(told)
    for task, line in told.items():
        names = [f"{task}-{place}" for each, place in sorted(unused) if each == task]
        assert ", ".join(names[:3]) in line


@settings(deadline=None)
@given(RECORDED, st.integers(0, 8))
def test_a_strict_run_that_makes_the_same_calls_goes_on(
    recorded: list[tuple[Call, str | None]], more: int
) -> None:
    """Whatever of them had completed, in the order in which they were made, and with new ones."""
    calls = [call for call, state in recorded if state is not None]
    again = [(call, state) for call, state in recorded if state is not None]
    new = [Call("store", None, 10 + number) for number in range(more)]
    attempt = Attempt(again, "inputs", "strict")

    found = attempt.make([*calls, *new], range(len(calls) + more))

    assert found[: len(calls)] == list(range(len(calls)))
    attempt.records.end(has_failed=False)
    assert attempt.told == []


@settings(deadline=None)
@given(RECORDED, st.lists(CALLS, max_size=8))
def test_a_strict_run_runs_nothing_that_comes_before_what_is_on_record(
    recorded: list[tuple[Call, str | None]], calls: list[Call]
) -> None:
    """A call is let run only when the flow has made every completed call of before it."""
    attempt = Attempt(recorded, "inputs", "strict")
    completed = [
        (place, call) for place, (call, state) in enumerate(recorded) if state == "COMPLETED"
    ]
    made: Counter[tuple[str, UUID | None]] = Counter()
    for call in calls:
        made[call.task, call.caller] += 1
        try:
            [found] = attempt.make([call], [0])
        except RunChanged:
            return
        runs = found is None or recorded[found][1] != "COMPLETED"
        before = len(recorded) if found is None else found
        if runs:
            needed = Counter(
                (each.task, each.caller)
                for place, each in completed
                if place < before and each.caller == call.caller
            )
            assert all(made[key] >= count for key, count in needed.items())

"""Slots of concurrency limits: the tables of the specification, and a plain model of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch import errors
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.port import Database
from embedded_orch.orchestration.transition import decide
from embedded_orch.process import Process
from embedded_orch.states import StateType
from embedded_orch.store import limits, processes, slots, transitions
from embedded_orch.store.limits import LimitFields, LimitState
from embedded_orch.store.slots import Answer, Claim
from tests.builders import NOON, SECOND
from tests.store.builders import a_proposal, a_task_run, an_owner


class Slots:
    """Limits and claims in one database."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process
        self.owner_id = an_owner(database, process).id

    def limit(self, name: str, slot_limit: int, *, decay: float = 0.0, now: int = NOON) -> None:
        id = self.process.new_id()
        self.database.write(
            lambda tx: limits.create(
                tx,
                id=id,
                name=name,
                slot_limit=slot_limit,
                slot_decay_per_second=decay,
                is_active=True,
                now=now,
            )
        )

    def update(self, name: str, *, now: int = NOON, **fields: Any) -> LimitState:
        given = LimitFields(**fields)
        return self.database.write(lambda tx: limits.update(tx, name=name, fields=given, now=now))

    def claim(self, *names: str, slots: int = 1, **fields: Any) -> Claim:
        named = {"id": self.process.new_id(), "owner_id": self.owner_id, **fields}
        return Claim(names=tuple(sorted(names)), slots=slots, **named)

    def take(self, claim: Claim, *, now: int = NOON, waits: bool = False) -> Answer:
        """As the engine does: by one statement, or else by those that look at everything."""
        return self.database.write(
            lambda tx: (
                slots.take_at_once(tx, claim, now=now)
                or slots.take(tx, claim, now=now, waits=waits)
            )
        )

    def take_at_once(self, claim: Claim) -> Answer | None:
        return self.database.write(lambda tx: slots.take_at_once(tx, claim, now=NOON))

    def release(self, claim: Claim, *, now: int = NOON) -> None:
        self.database.write(lambda tx: slots.release(tx, claim_id=claim.id, now=now))

    def taken(self, name: str, *, now: int = NOON) -> int:
        return self.state(name, now=now).taken

    def state(self, name: str, *, now: int = NOON) -> LimitState:
        return self.database.read(lambda tx: limits.get(tx, name=name, now=now))


@pytest.fixture
def held(database: Database, process: Process) -> Slots:
    return Slots(database, process)


class TestTheTableOfGlobalLimits:
    """Sections 5.3 and 11. The waiting time of an answer 423 comes with the HTTP interface."""

    def test_an_unknown_name_is_ignored_and_nothing_is_held(self, held: Slots) -> None:
        answer = held.take(held.claim("nobody"))

        assert answer == Answer(is_taken=True, known=())

    def test_unknown_names_beside_known_ones_are_ignored(self, held: Slots) -> None:
        held.limit("db", 1)

        assert held.take(held.claim("db", "nobody")) == Answer(is_taken=True, known=("db",))
        assert held.taken("db") == 1

    def test_limit_2_take_2_then_1_is_refused(self, held: Slots) -> None:
        held.limit("db", 2)

        assert held.take(held.claim("db", slots=2)).is_taken
        answer = held.take(held.claim("db"))

        assert answer == Answer(False, ("db",), (("db", 2),))
        assert held.taken("db") == 2

    def test_limit_2_take_3_can_never_be(self, held: Slots) -> None:
        held.limit("db", 2)

        with pytest.raises(errors.ConcurrencySlotAcquisitionError, match=r"'db'.* which has 2"):
            held.take(held.claim("db", slots=3))

    def test_a_rate_limit_needs_a_decay(self, held: Slots) -> None:
        held.limit("db", 2)

        with pytest.raises(errors.ConcurrencySlotAcquisitionError, match="do not decay"):
            held.take(held.claim("db", is_rate=True))

    def test_one_of_full_and_free_takes_none(self, held: Slots) -> None:
        held.limit("full", 1)
        held.limit("free", 1)
        held.take(held.claim("full"))

        answer = held.take(held.claim("full", "free"))

        assert answer.blocking == (("full", 1),)
        assert held.taken("free") == 0

    def test_limit_4_decay_2_take_4_wait_1_2_s_shows_2(self, held: Slots) -> None:
        held.limit("api", 4, decay=2)
        held.take(held.claim("api", slots=4, is_rate=True))

        seen = [held.taken("api", now=NOON + round(after * SECOND)) for after in (0, 0.4, 1.2, 9)]

        assert seen == [4, 4, 2, 0]

    def test_an_inactive_limit_is_skipped(self, held: Slots) -> None:
        held.limit("db", 0)
        held.update("db", is_active=False)

        assert held.take(held.claim("db")) == Answer(is_taken=True, known=("db",))
        assert held.taken("db") == 0

    def test_a_limit_of_0_can_never_be_taken(self, held: Slots) -> None:
        held.limit("tag:db", 0)

        with pytest.raises(errors.ConcurrencySlotAcquisitionError):
            held.take(held.claim("tag:db"))

    def test_giving_back_twice_gives_back_once(self, held: Slots) -> None:
        held.limit("db", 2)
        first, second = held.claim("db"), held.claim("db")
        held.take(first)
        held.take(second)

        held.release(first)
        held.release(first)

        assert held.taken("db") == 1

    def test_taking_twice_takes_once(self, held: Slots) -> None:
        held.limit("db", 2)
        held.limit("api", 4, decay=1)
        claim = held.claim("db", "api")
        spent = held.claim("api", is_rate=True)

        for _ in range(2):
            assert held.take(claim).is_taken
            assert held.take(spent).is_taken

        assert (held.taken("db"), held.taken("api")) == (1, 2)

    def test_slots_that_decay_and_are_given_back_count_once(self, held: Slots) -> None:
        held.limit("api", 4, decay=1)
        claim = held.claim("api", slots=3)
        held.take(claim)

        held.release(claim, now=NOON + 2 * SECOND)

        # One of the three was left, and no more can be given back.
        assert held.taken("api", now=NOON + 2 * SECOND) == 0


class TestDecay:
    def test_takes_in_between_lose_nothing_of_a_slot_on_its_way_back(self, held: Slots) -> None:
        """Seen to fail with the time of a take as the time from which slots decay."""
        held.limit("api", 2, decay=2)
        held.take(held.claim("api", slots=2, is_rate=True))

        taken = [
            held.take(held.claim("api", is_rate=True), now=NOON + tenth * SECOND // 10).is_taken
            for tenth in range(3, 121, 3)
        ]

        assert sum(taken) == 24

    def test_an_answer_says_when_there_is_room(self, held: Slots) -> None:
        held.limit("api", 3, decay=0.3)
        held.take(held.claim("api", slots=3, is_rate=True))
        claim = held.claim("api", slots=2, is_rate=True)

        answer = held.take(claim)

        assert answer.decays_in is not None
        assert not held.take(claim, now=NOON + answer.decays_in - 1).is_taken
        assert held.take(claim, now=NOON + answer.decays_in).is_taken

    def test_a_clock_that_was_set_back_gives_nothing_back(self, held: Slots) -> None:
        held.limit("api", 2, decay=1)
        held.take(held.claim("api", slots=2, is_rate=True))

        assert held.taken("api", now=NOON - 60 * SECOND) == 2


class TestFairness:
    def test_who_came_later_does_not_pass_who_waits(self, held: Slots) -> None:
        """Seen to fail when a claim looks only at the room there is."""
        held.limit("db", 2)
        holder, wants_two, wants_one = held.claim("db"), held.claim("db", slots=2), held.claim("db")
        held.take(holder)
        held.take(wants_two, waits=True)

        assert not held.take(wants_one, waits=True).is_taken
        held.release(holder)

        assert not held.take(wants_one, waits=True).is_taken
        assert held.take(wants_two, waits=True).is_taken

    def test_who_gave_up_its_place_holds_up_nobody(self, held: Slots) -> None:
        held.limit("db", 2)
        held.take(held.claim("db"))
        wants_two, wants_one = held.claim("db", slots=2), held.claim("db")
        held.take(wants_two, waits=True)

        held.release(wants_two)

        assert held.take(wants_one).is_taken

    def test_who_holds_slots_already_is_not_held_up_by_waiters(self, held: Slots) -> None:
        """Seen to fail, and never to end, when such claims stand in line."""
        held.limit("outer", 1)
        held.limit("inner", 1)
        outer, both = held.claim("outer"), held.claim("outer", "inner")
        held.take(outer)
        held.take(both, waits=True)

        assert held.take(held.claim("inner", passes_waiters=True)).is_taken

    def test_a_dead_process_holds_up_nobody_and_holds_nothing(self, held: Slots) -> None:
        held.limit("db", 1)
        dead = an_owner(held.database, held.process)
        holder = held.claim("db", owner_id=dead.id)
        waiter = held.claim("db", owner_id=dead.id)
        held.take(holder)
        held.take(waiter, waits=True)

        held.database.write(lambda tx: processes.end(tx, id=dead.id, now=NOON))

        assert held.state("db").claims == ()
        assert held.take(held.claim("db")).is_taken


class TestLimits:
    def test_a_name_is_there_once(self, held: Slots) -> None:
        held.limit("db", 1)

        with pytest.raises(errors.ConfigurationError, match="already"):
            held.limit("db", 2)

    @pytest.mark.parametrize("name", ["", "a/b", "100%"])
    def test_names_that_cannot_be(self, held: Slots, name: str) -> None:
        with pytest.raises(errors.ConfigurationError):
            held.limit(name, 1)

    def test_holders_keep_their_slots_when_the_limit_is_lowered(self, held: Slots) -> None:
        held.limit("db", 2)
        first = held.claim("db")
        for claim in (first, held.claim("db")):
            held.take(claim)

        held.update("db", slot_limit=1)
        held.release(first)

        assert held.taken("db") == 1
        assert not held.take(held.claim("db")).is_taken

    def test_reset_takes_the_slots_and_leaves_who_waits(self, held: Slots) -> None:
        held.limit("db", 1)
        waiting = held.claim("db")
        held.take(held.claim("db"))
        held.take(waiting, waits=True)

        held.database.write(lambda tx: limits.reset(tx, name="db", now=NOON))

        assert [claim.claim_id for claim in held.state("db").claims] == [waiting.id]
        assert held.take(waiting, waits=True).is_taken

    def test_what_is_held_counts_when_slots_begin_to_decay(self, held: Slots) -> None:
        held.limit("db", 3)
        held.take(held.claim("db", slots=2))

        held.update("db", slot_decay_per_second=1.0)

        assert [held.taken("db", now=NOON + after * SECOND) for after in (0, 1, 2)] == [2, 1, 0]

    def test_a_deleted_limit_is_gone_with_its_claims(self, held: Slots) -> None:
        held.limit("db", 1)
        waiting = held.claim("db")
        held.take(held.claim("db"))
        held.take(waiting, waits=True)

        assert held.database.write(lambda tx: limits.delete(tx, name="db"))
        assert not held.database.write(lambda tx: limits.delete(tx, name="db"))
        assert held.take(waiting, waits=True) == Answer(is_taken=True, known=())


class TestTakingAtOnce:
    """One statement takes what it may, and nothing where there is more to be looked at."""

    def test_takes_what_is_free(self, held: Slots) -> None:
        held.limit("db", 3)
        held.take(held.claim("db"))

        answer = held.take_at_once(held.claim("db", slots=2))

        assert answer == Answer(is_taken=True, known=("db",))
        assert held.taken("db") == 3

    def test_takes_nothing_that_is_not_free(self, held: Slots) -> None:
        held.limit("db", 3)
        held.take(held.claim("db"))

        assert held.take_at_once(held.claim("db", slots=3)) is None
        assert held.taken("db") == 1

    def test_takes_nothing_for_who_came_after_one_who_waits(self, held: Slots) -> None:
        held.limit("db", 2)
        held.take(held.claim("db"))
        held.take(held.claim("db", slots=2), waits=True)

        assert held.take_at_once(held.claim("db")) is None
        assert held.take_at_once(held.claim("db", passes_waiters=True)) is not None

    def test_takes_nothing_twice(self, held: Slots) -> None:
        held.limit("db", 2)
        claim = held.claim("db")
        held.take(claim)

        assert held.take_at_once(claim) is None
        assert held.taken("db") == 1

    def test_leaves_limits_alone_that_are_counted_otherwise(self, held: Slots) -> None:
        held.limit("api", 2, decay=1.0)
        held.limit("off", 2)
        held.update("off", is_active=False)
        held.limit("one", 1)
        held.limit("two", 1)

        assert held.take_at_once(held.claim("api")) is None
        assert held.take_at_once(held.claim("off")) is None
        assert held.take_at_once(held.claim("nobody")) is None
        assert held.take_at_once(held.claim("one", "two")) is None

    def test_takes_nothing_for_a_process_that_is_not_written_down(self, held: Slots) -> None:
        held.limit("db", 1)

        assert held.take_at_once(held.claim("db", owner_id=held.process.new_id())) is None
        assert held.taken("db") == 0


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_run_that_is_told_to_wait_holds_nothing_that_came_back_meanwhile(
    held: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to hold the slot, and to wait for it for ever, when it is taken after that.

    On SQLite nothing comes back while a transaction writes.
    """
    held.limit("tag:db", 1)
    holder, mine = held.claim("tag:db"), held.claim("tag:db")
    held.take(holder)
    run_id = a_task_run(held.database, held.process, StateType.PENDING)

    def decide_late(*arguments: Any, **options: Any) -> Any:
        decision = decide(*arguments, **options)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(held.release, holder).result()
        return decision

    monkeypatch.setattr(transitions, "decide", decide_late)
    running = a_proposal(held.process, StateType.RUNNING)
    decision = held.database.write(
        lambda tx: transitions.propose(
            tx, "task_run", run_id=run_id, proposal=running, now=NOON, epoch=None, claim=mine
        )
    )

    assert decision.run.state_name == "AwaitingConcurrencySlot"
    assert [claim.state for claim in held.state("tag:db").claims] == ["WAITING"]


# -- a model ---------------------------------------------------------------------------------------


class Model:
    """What is taken of two held limits and one that decays, in plain words."""

    def __init__(self) -> None:
        self.limits = {"a": 2, "b": 3, "rate": 4}
        self.decay = 2
        self.holding: dict[UUID, Claim] = {}
        self.waiting: dict[UUID, Claim] = {}
        self.moments: list[int] = []

    def taken(self, name: str, now: int) -> int:
        if name != "rate":
            return sum(each.slots for each in self.holding.values() if name in each.names)
        return self.still_spent(now)

    def still_spent(self, now: int) -> int:
        """Each slot comes back half a second after the one before it, or after it was taken."""
        return sum(moment > now for moment in self.moments)

    def spend(self, slots: int, now: int) -> None:
        for _ in range(slots):
            last = max([now, *self.moments])
            self.moments.append(last + SECOND // self.decay)

    def take(self, claim: Claim, now: int) -> bool:
        room = all(self.taken(name, now) + claim.slots <= self.limits[name] for name in claim.names)
        before = [each for id, each in self.waiting.items() if id < claim.id]
        is_behind = any(set(each.names) & set(claim.names) for each in before)
        if not room or is_behind:
            self.waiting[claim.id] = claim
            return False
        self.waiting.pop(claim.id, None)
        if "rate" in claim.names:
            self.spend(claim.slots, now)
        else:
            self.holding[claim.id] = claim
        return True

    def release(self, claim: Claim) -> None:
        self.holding.pop(claim.id, None)
        self.waiting.pop(claim.id, None)


@pytest.fixture(scope="module")
def memory() -> Iterator[Slots]:
    process = Process()
    opened = OpenDatabases(process)
    shared = opened.open(":memory:", {})
    yield Slots(shared.database, process)
    opened.close(shared)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("take"),
            st.sampled_from([("a",), ("b",), ("a", "b"), ("rate",)]),
            st.integers(1, 2),
        ),
        st.tuples(st.just("again"), st.integers(0, 30), st.none()),
        st.tuples(st.just("release"), st.integers(0, 30), st.none()),
        st.tuples(st.just("pass"), st.integers(0, 1_300_000), st.none()),
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_slots_are_taken_as_in_the_model(
    memory: Slots, steps: Sequence[tuple[str, Any, Any]]
) -> None:
    """Random claims, on one limit and on two, given back, given up and tried again in any order."""
    model, now, claims = Model(), NOON, []
    for name, slot_limit in model.limits.items():
        memory.database.write(lambda tx, name=name: limits.delete(tx, name=name))
        memory.limit(name, slot_limit, decay=model.decay if name == "rate" else 0)
    for kind, which, count in steps:
        if kind == "pass":
            now += which
        elif kind == "take":
            claims.append(memory.claim(*which, slots=count, is_rate="rate" in which))
            assert memory.take(claims[-1], now=now, waits=True).is_taken == model.take(
                claims[-1], now
            )
        elif claims:
            claim = claims[which % len(claims)]
            if kind == "release":
                memory.release(claim, now=now)
                model.release(claim)
            elif claim.id in model.waiting:
                answer = memory.take(claim, now=now, waits=True)
                assert answer.is_taken == model.take(claim, now)
        for name, slot_limit in model.limits.items():
            taken = memory.taken(name, now=now)
            assert taken == model.taken(name, now)
            assert taken <= slot_limit

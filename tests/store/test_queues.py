"""Pools and queues: made, changed, found, and kept in order of priority."""

from __future__ import annotations

import pytest

from embedded_orch import errors
from embedded_orch.db.port import Database
from embedded_orch.store.names import check_name
from embedded_orch.store.queues import (
    WorkPoolFields,
    WorkQueue,
    WorkQueueFields,
    find_work_pools,
    find_work_queue,
    find_work_queues,
    get_work_pool,
    mark_polled,
    update_work_pool,
    update_work_queue,
    upsert_work_pool,
)
from tests.builders import NOON, SECOND, Builder


def priorities(database: Database, pool_name: str = "pool") -> dict[str, int]:
    """The queues of a pool by name, in the order in which they are served."""
    queues = database.read(lambda tx: find_work_queues(tx, pool_name=pool_name))
    return {queue.name: queue.priority for queue in queues}


# -- pools -----------------------------------------------------------------------------------------


def test_a_new_pool_has_a_queue_named_default_of_priority_1(build: Builder) -> None:
    pool = build.pool()

    (queue,) = build.database.read(lambda tx: find_work_queues(tx, pool_name="pool"))
    assert (queue.name, queue.priority) == ("default", 1)
    assert pool.default_queue_id == queue.id
    assert (pool.status, pool.type, pool.concurrency_limit) == ("NOT_READY", "process", None)


def test_a_pool_made_twice_is_one_pool_and_keeps_what_is_not_given(build: Builder) -> None:
    first = build.pool(description="nightly", concurrency_limit=3)

    second = build.pool(base_job_template={"image": "x"})

    assert (second.id, second.default_queue_id) == (first.id, first.default_queue_id)
    assert (second.description, second.concurrency_limit) == ("nightly", 3)
    assert second.base_job_template == {"image": "x"}
    assert build.database.read(lambda tx: get_work_pool(tx, name="pool")) == second
    assert priorities(build.database) == {"default": 1}


def test_a_field_that_is_given_as_none_is_cleared(build: Builder) -> None:
    build.pool(description="nightly", concurrency_limit=3)

    pool = build.pool(description=None, concurrency_limit=None)

    assert (pool.description, pool.concurrency_limit) == (None, None)


def test_pausing_a_pool_shows_in_its_status(build: Builder) -> None:
    build.pool(is_paused=True)

    def change(is_paused: bool) -> str:
        fields = WorkPoolFields(is_paused=is_paused)
        return build.database.write(
            lambda tx: update_work_pool(tx, name="pool", now=NOON, fields=fields)
        ).status

    assert [change(is_paused) for is_paused in (True, False, False)] == [
        "PAUSED",
        "NOT_READY",
        "NOT_READY",
    ]


def test_the_type_of_a_pool_does_not_change(build: Builder) -> None:
    build.pool()
    id, queue_id = build.process.new_id(), build.process.new_id()

    with pytest.raises(errors.ConfigurationError, match="type 'process'"):
        build.database.write(
            lambda tx: upsert_work_pool(
                tx, id=id, queue_id=queue_id, name="pool", now=NOON, type="docker"
            )
        )


def test_an_unknown_pool_is_an_error_that_names_those_there_are(build: Builder) -> None:
    build.pool("east")
    build.pool("west")

    with pytest.raises(errors.ConfigurationError, match=r"'north'.*'east', 'west'"):
        build.database.write(
            lambda tx: update_work_pool(tx, name="north", now=NOON, fields=WorkPoolFields())
        )


@pytest.mark.parametrize("name", ["a/b", "50%", "a&b", "<a", "a>", ""])
def test_names_that_the_rules_forbid_are_refused(name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="work pool"):
        check_name("work pool", name)


def test_the_names_of_pools_and_queues_are_checked(build: Builder) -> None:
    build.pool()

    with pytest.raises(errors.ConfigurationError, match="a/b"):
        build.pool("a/b")
    with pytest.raises(errors.ConfigurationError, match="a/b"):
        build.queue("a/b")

    assert priorities(build.database) == {"default": 1}


def test_a_negative_limit_is_refused_for_a_pool_and_for_a_queue(build: Builder) -> None:
    build.pool()

    with pytest.raises(errors.ConfigurationError, match=r"'pool'.*-1"):
        build.pool(concurrency_limit=-1)
    with pytest.raises(errors.ConfigurationError, match=r"'slow'.*-1"):
        build.queue("slow", concurrency_limit=-1)


# -- queues ----------------------------------------------------------------------------------------


def test_an_explicit_priority_moves_the_others_and_an_omitted_one_is_the_first_free(
    build: Builder,
) -> None:
    build.pool()

    build.queue("hi", priority=1)
    build.queue("lo")

    assert priorities(build.database) == {"hi": 1, "default": 2, "lo": 3}


def test_only_the_unbroken_row_of_others_moves(build: Builder) -> None:
    build.pool()
    build.queue("second", priority=2)
    build.queue("fifth", priority=5)

    build.queue("new", priority=1)

    assert priorities(build.database) == {"new": 1, "default": 2, "second": 3, "fifth": 5}


def test_an_omitted_priority_fills_a_gap(build: Builder) -> None:
    build.pool()
    build.queue("third", priority=3)

    build.queue("new")

    assert priorities(build.database) == {"default": 1, "new": 2, "third": 3}


def test_a_queue_that_keeps_its_priority_moves_nobody(build: Builder) -> None:
    build.pool()
    build.queue("second", priority=2)

    build.queue("default", priority=1)

    assert priorities(build.database) == {"default": 1, "second": 2}


def test_a_queue_that_leaves_its_priority_makes_room_behind(build: Builder) -> None:
    build.pool()
    for name in ("b", "c", "d"):
        build.queue(name)

    build.queue("d", priority=2)

    assert priorities(build.database) == {"default": 1, "d": 2, "b": 3, "c": 4}


def test_priorities_of_another_pool_stay(build: Builder) -> None:
    build.pool()
    build.pool("other")

    build.queue("hi", priority=1)

    assert priorities(build.database, "other") == {"default": 1}


def test_a_priority_below_1_is_refused(build: Builder) -> None:
    build.pool()

    with pytest.raises(errors.ConfigurationError, match=r"'hi'.*priority 0"):
        build.queue("hi", priority=0)


def test_a_queue_made_twice_is_one_queue_and_keeps_what_is_not_given(build: Builder) -> None:
    build.pool()
    first = build.queue("slow", description="over night", concurrency_limit=2)

    second = build.queue("slow", is_paused=True)

    assert (second.id, second.priority) == (first.id, first.priority)
    assert (second.description, second.concurrency_limit) == ("over night", 2)
    assert (second.is_paused, second.status) == (True, "PAUSED")


def test_an_unknown_queue_is_an_error_that_names_those_there_are(build: Builder) -> None:
    build.pool()
    build.queue("slow")

    with pytest.raises(errors.ConfigurationError, match=r"'fast'.*'default', 'slow'"):
        build.database.write(
            lambda tx: update_work_queue(
                tx, pool_name="pool", name="fast", now=NOON, fields=WorkQueueFields()
            )
        )


# -- polls -----------------------------------------------------------------------------------------


def polled(build: Builder) -> dict[str, tuple[int | None, str]]:
    queues = build.database.read(lambda tx: find_work_queues(tx, pool_name="pool"))
    return {queue.name: (queue.last_polled, queue.status) for queue in queues}


def poll(build: Builder, now: int, queue_names: list[str] | None = None) -> None:
    build.database.write(
        lambda tx: mark_polled(tx, pool_name="pool", queue_names=queue_names, now=now)
    )


def test_a_poll_makes_the_queues_it_names_ready(build: Builder) -> None:
    build.pool()
    build.queue("slow")
    build.queue("idle")

    poll(build, NOON, ["default", "slow"])

    assert polled(build) == {
        "default": (NOON, "READY"),
        "slow": (NOON, "READY"),
        "idle": (None, "NOT_READY"),
    }


def test_the_later_of_two_polls_stays_and_the_first_one_ever_counts(build: Builder) -> None:
    """The greatest of two times where one is NULL: an engine's own max() says NULL on SQLite."""
    build.pool()

    poll(build, NOON)
    poll(build, NOON - SECOND)

    assert polled(build) == {"default": (NOON, "READY")}


def test_a_paused_queue_that_is_polled_stays_paused_and_is_ready_when_it_goes_on(
    build: Builder,
) -> None:
    build.pool()
    build.queue("default", is_paused=True)

    poll(build, NOON)
    paused = polled(build)
    build.queue("default", is_paused=False)

    assert paused == {"default": (NOON, "PAUSED")}
    assert polled(build) == {"default": (NOON, "READY")}


def test_a_queue_that_nobody_polled_lately_is_not_ready_when_it_goes_on(build: Builder) -> None:
    build.pool()
    build.queue("default", is_paused=True)
    poll(build, NOON - 61 * SECOND)

    build.queue("default", is_paused=False)

    assert polled(build) == {"default": (NOON - 61 * SECOND, "NOT_READY")}


def test_polling_a_queue_that_is_not_there_changes_nothing(build: Builder) -> None:
    build.pool()

    with pytest.raises(errors.ConfigurationError, match="'fast'"):
        poll(build, NOON, ["default", "fast"])

    assert polled(build) == {"default": (None, "NOT_READY")}


# -- finding ---------------------------------------------------------------------------------------

NAMES = ["50_off", "500off", "Nightly", "night_shift", "back\\slash"]
FOUND_BY = {
    "night": {"Nightly", "night_shift"},
    "NIGHT": {"Nightly", "night_shift"},
    "_": {"50_off", "night_shift"},
    "0_O": {"50_off"},
    "\\": {"back\\slash"},
    "%": set[str](),
    "": {*NAMES, "default"},
    None: {*NAMES, "default"},
}


def test_a_part_of_a_name_is_found_in_either_case_and_taken_literally(build: Builder) -> None:
    build.pool("default")
    for name in NAMES:
        build.pool(name)
        build.queue(name, pool_name="default")

    def pools(text: str | None) -> set[str]:
        found = build.database.read(lambda tx: find_work_pools(tx, name_contains=text))
        return {pool.name for pool in found}

    def queues(text: str | None) -> set[str]:
        found = build.database.read(
            lambda tx: find_work_queues(tx, pool_name="default", name_contains=text)
        )
        return {queue.name for queue in found}

    assert {text: pools(text) for text in FOUND_BY} == FOUND_BY
    assert {text: queues(text) for text in FOUND_BY} == FOUND_BY


def test_pools_are_listed_by_name_in_the_order_of_their_bytes(build: Builder) -> None:
    """Whatever the locale of a Postgres database is."""
    for name in ("b", "Z", "a", "é"):
        build.pool(name)

    pools = build.database.read(lambda tx: find_work_pools(tx, name_contains=None))

    assert [pool.name for pool in pools] == ["Z", "a", "b", "é"]


def test_one_queue_is_found_by_its_names_or_is_an_error(build: Builder) -> None:
    build.pool()
    queue = build.queue("slow")

    def find(pool_name: str, name: str) -> WorkQueue:
        return build.database.read(lambda tx: find_work_queue(tx, pool_name=pool_name, name=name))

    assert find("pool", "slow") == queue
    with pytest.raises(errors.ConfigurationError, match=r"'fast'.*'default', 'slow'"):
        find("pool", "fast")
    with pytest.raises(errors.ConfigurationError, match="'west'"):
        find("west", "slow")


def test_a_pool_that_is_not_there_has_no_queues(build: Builder) -> None:
    assert build.database.read(lambda tx: find_work_queues(tx, pool_name="nowhere")) == []
    assert build.database.read(lambda tx: get_work_pool(tx, name="nowhere")) is None

"""Which call a record belongs to: the same inputs, in whatever order threads bring them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from embedded_orch.engine.contexts import FlowRunContext
from embedded_orch.engine.identity import call_digest, digest_key
from embedded_orch.engine.keeping import Keeping
from embedded_orch.engine.options import FlowOptions, TaskOptions
from embedded_orch.engine.signatures import Signature
from embedded_orch.engine.specs import FlowSpec, TaskSpec
from embedded_orch.values import hash_inputs

if TYPE_CHECKING:
    from collections.abc import Callable

PARENT, OTHER_PARENT = UUID(int=1), UUID(int=2)


def load(path: str) -> None: ...
def store(path: str) -> None: ...


def a_task(function: Callable[..., Any] = load) -> TaskSpec:
    return TaskSpec(
        function,
        name="load",
        signature=Signature(function),
        is_async=False,
        options=TaskOptions({}),
    )


def an_attempt() -> FlowRunContext:
    flow = FlowSpec(
        load,
        name="flow",
        signature=Signature(load),
        is_async=False,
        options=FlowOptions({}),
    )
    engine: Any = None
    return FlowRunContext(
        engine,
        flow,
        run_id=UUID(int=9),
        name="run",
        epoch=0,
        run_count=1,
        has_records=False,
        on_crash="fail",
        parameters={},
        tags=(),
        start_time=0,
        caller=None,
        keeping=Keeping(),
    )


def key_of(attempt: FlowRunContext, arguments: dict[str, object]) -> str:
    digest = call_digest(None, a_task().key, hash_inputs(arguments))
    occurrence = attempt.occurrences.next_of(digest)
    assert occurrence is not None
    return digest_key(digest, occurrence)


def test_equal_calls_are_told_apart_by_their_order() -> None:
    attempt = an_attempt()

    keys = [key_of(attempt, {"path": "a"}) for _ in range(3)]

    digest = keys[0]
    assert keys == [digest, f"{digest}-1", f"{digest}-2"]
    assert digest.startswith("~")


@given(order=st.permutations(["a", "a", "a", "b", "b", "c"]))
def test_calls_have_the_same_keys_in_any_order(order: list[str]) -> None:
    first, second = an_attempt(), an_attempt()

    once = sorted(key_of(first, {"path": each}) for each in "aaabbc")
    again = sorted(key_of(second, {"path": each}) for each in order)

    assert once == again


def test_calls_from_threads_have_the_same_keys() -> None:
    alone, together = an_attempt(), an_attempt()
    paths = [str(number % 7) for number in range(64)]
    barrier = threading.Barrier(8)

    def call(paths: list[str]) -> list[str]:
        barrier.wait(30)
        return [key_of(together, {"path": path}) for path in paths]

    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(call, [paths[n::8] for n in range(8)])
        keys = sorted(key for part in parts for key in part)

    assert keys == sorted(key_of(alone, {"path": path}) for path in paths)


def test_a_call_is_told_by_its_parent_task_and_inputs() -> None:
    digests = {
        call_digest(None, "load", hash_inputs({"path": "a"})),
        call_digest(PARENT, "load", hash_inputs({"path": "a"})),
        call_digest(OTHER_PARENT, "load", hash_inputs({"path": "a"})),
        call_digest(None, "store", hash_inputs({"path": "a"})),
        call_digest(None, "load", hash_inputs({"path": "b"})),
        call_digest(None, "load", hash_inputs({"path": 1})),
        call_digest(None, "load", hash_inputs({"path": True})),
        call_digest(None, "load", hash_inputs({"other": "a"})),
    }

    assert len(digests) == 8


def test_a_call_is_not_told_by_the_order_of_its_inputs() -> None:
    assert call_digest(None, "f", hash_inputs({"a": 1, "b": 2})) == call_digest(
        None, "f", hash_inputs({"b": 2, "a": 1})
    )


def test_inputs_that_cannot_be_hashed_count_by_their_type() -> None:
    one, other = threading.Lock(), threading.Lock()

    assert call_digest(None, "f", hash_inputs({"lock": one})) == call_digest(
        None, "f", hash_inputs({"lock": other})
    )
    assert call_digest(None, "f", hash_inputs({"lock": one})) != call_digest(
        None, "f", hash_inputs({"lock": object()})
    )


def test_digest_stays_the_same_from_version_to_version() -> None:
    """Records of a run that was begun by an older version are found by this one."""
    digest = call_digest(PARENT, "load", hash_inputs({"path": "a", "limit": 3}))

    assert digest.hex() == "36314e8bf182710991f8bb85"

"""Binding and spreading arguments, with ``inspect`` as the oracle."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_orch.engine.signatures import Signature
from embedded_orch.errors import ParameterBindError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def functions(draw: st.DrawFn) -> Callable[..., Any]:
    """A function of any parameters, which returns what it got."""
    count = draw(st.integers(0, len(NAMES)))
    positional_only = draw(st.integers(0, count))
    positional = draw(st.integers(positional_only, count))
    defaults_from = draw(st.integers(0, positional))
    parts: list[str] = []
    for position, name in enumerate(NAMES[:positional]):
        parts.append(f"{name}={position}" if position >= defaults_from else name)
        if position + 1 == positional_only:
            parts.append("/")
    has_args = draw(st.booleans())
    if has_args:
        parts.append("*args")
    elif positional < count:
        parts.append("*")
    for name in NAMES[positional:count]:
        parts.append(f"{name}='{name}'" if draw(st.booleans()) else name)
    if draw(st.booleans()):
        parts.append("**kwargs")
    space: dict[str, Any] = {}
    exec(f"def function({', '.join(parts)}): return locals()", space)
    function: Callable[..., Any] = space["function"]
    return function


calls = st.tuples(
    st.lists(st.integers(100, 999), max_size=6),
    st.dictionaries(st.sampled_from([*NAMES, "args", "kwargs", "other"]), st.integers(-9, -1)),
)


@settings(max_examples=500, deadline=None)
@given(function=functions(), call=calls, is_wrapped=st.booleans())
def test_arguments_are_bound_as_a_call_binds_them(
    function: Callable[..., Any], call: tuple[list[int], dict[str, int]], is_wrapped: bool
) -> None:
    args, kwargs = tuple(call[0]), call[1]
    signature = Signature(functools.partial(function) if is_wrapped else function)
    try:
        received = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(ParameterBindError, match="function"):
            signature.bind(args, kwargs)
        return

    bound = signature.bind(args, kwargs)

    assert bound == received
    assert set(bound) == set(signature.parameters)
    spread_args, spread_kwargs = signature.spread(bound)
    assert function(*spread_args, **spread_kwargs) == received
    assert signature.bind(spread_args, spread_kwargs) == bound


@settings(max_examples=200, deadline=None)
@given(function=functions(), call=calls)
def test_code_and_inspection_read_the_same_signature(
    function: Callable[..., Any], call: tuple[list[int], dict[str, int]]
) -> None:
    args, kwargs = tuple(call[0]), call[1]
    read = Signature(function)
    inspected = Signature(functools.wraps(function)(lambda *a, **k: None))

    assert read.parameters == inspected.parameters
    assert dict(read.defaults) == dict(inspected.defaults)
    try:
        bound = read.bind(args, kwargs)
    except ParameterBindError:
        with pytest.raises(ParameterBindError):
            inspected.bind(args, kwargs)
        return
    assert inspected.bind(args, kwargs) == bound
    assert list(inspected.bind(args, kwargs)) == list(bound)


def test_partial_takes_what_is_left_of_its_function() -> None:
    signature = Signature(functools.partial(lambda a, b, c=3: None, 1))

    assert signature.bind((2,), {}) == {"b": 2, "c": 3}


def test_callable_object_takes_what_its_call_takes() -> None:
    class Loader:
        def __call__(self, path: str, *, retries: int = 3) -> None: ...

    assert Signature(Loader()).bind(("x",), {}) == {"path": "x", "retries": 3}


def test_bound_method_takes_no_self() -> None:
    class Loader:
        def load(self, path: str) -> None: ...

    assert Signature(Loader().load).bind(("x",), {}) == {"path": "x"}


@pytest.mark.parametrize("name", ["return_state", "wait_for"])
@pytest.mark.parametrize("form", ["{}", "*, {}", "*{}", "**{}", "{}, /"])
def test_reserved_parameter_is_refused_when_decorated(form: str, name: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def function({form.format(name)}): ...", space)

    with pytest.raises(SignatureError, match=f"{name}.*rename"):
        Signature(space["function"])


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, r"load\(path, limit\) misses 'path', 'limit'"),
        ((1, 2, 3), {}, "takes 2 positional arguments, 3 given"),
        ((1, 2), {"path": 1}, "got 'path' twice"),
        ((1, 2), {"root": 1}, "has no parameter 'root'"),
    ],
)
def test_misfit_names_the_function_and_what_does_not_fit(
    args: tuple[int, ...], kwargs: dict[str, int], said: str
) -> None:
    def load(path: str, limit: int) -> None: ...

    with pytest.raises(ParameterBindError, match=said) as caught:
        Signature(load).bind(args, kwargs)
    assert isinstance(caught.value, TypeError)

"""What the decorators take, what they refuse, and how they are asked for it again."""

from __future__ import annotations

from typing import Any

import pytest

from embedded_orch import errors, flow, task
from embedded_orch.engine.options import (
    NOT_YET,
    Arguments,
    FlowArguments,
    FlowOptions,
    TaskArguments,
    TaskOptions,
)

OPTIONS = {flow: FlowOptions, task: TaskOptions}
OF_BOTH = [(each, name) for each, options in OPTIONS.items() for name in options.names()]


def load(path: str) -> str:
    return path


@pytest.mark.parametrize("decorate", [flow, task])
def test_option_that_there_is_not_is_refused_and_those_that_there_are_named(decorate: Any) -> None:
    with pytest.raises(errors.OptionNotSupported, match=r"'no_such_option'.*retry_delay_seconds"):
        decorate(no_such_option=1)(load)


@pytest.mark.parametrize(("decorate", "option"), [each for each in OF_BOTH if each[1] in NOT_YET])
def test_option_that_is_not_honoured_yet_is_refused_with_the_reason(
    decorate: Any, option: str
) -> None:
    with pytest.raises(errors.OptionNotSupported, match=f"'{option}' yet: {NOT_YET[option]}"):
        decorate(**{option: object()})(load)


@pytest.mark.parametrize(("decorate", "option"), OF_BOTH)
def test_default_may_be_given_and_is_an_attribute(decorate: Any, option: str) -> None:
    default = getattr(OPTIONS[decorate], option)

    decorated = decorate(**{option: default})(load)

    if option != "name":
        assert getattr(decorated, option) == default
    assert getattr(decorated.options, option) == default


def test_callers_may_give_every_option_and_no_other() -> None:
    assert Arguments.__annotations__.keys() <= FlowArguments.__annotations__.keys()
    assert set(FlowArguments.__annotations__) == set(FlowOptions.names())
    assert set(TaskArguments.__annotations__) == set(TaskOptions.names())


@pytest.mark.parametrize("decorate", [flow, task])
def test_with_options_changes_what_is_given_and_keeps_the_rest(decorate: Any) -> None:
    decorated = decorate(name="first", retries=2, tags=["a"])(load)

    other = decorated.with_options(retries=3, tags=["b"])

    assert (other.name, other.retries, other.tags) == ("first", 3, ("b",))
    assert (decorated.name, decorated.retries, decorated.tags) == ("first", 2, ("a",))
    assert other.fn is load


@pytest.mark.parametrize("decorate", [flow, task])
def test_attribute_that_is_no_option_is_missing(decorate: Any) -> None:
    with pytest.raises(AttributeError, match="no_such_option"):
        _ = decorate(load).no_such_option

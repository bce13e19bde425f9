"""What the decorators take, what they refuse, and how they are asked for it again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
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
from embedded_orch.tasks import exponential_backoff

OPTIONS = {flow: FlowOptions, task: TaskOptions}
# Attributes that say something where the option says nothing, or another type for Prefect's sake.
MADE_OF_MORE = {
    "task_runner",
    "name",
    "description",
    "version",
    "tags",
    "validate_parameters",
    *FlowOptions.HOOKS,
    *TaskOptions.HOOKS,
}
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

    if option not in MADE_OF_MORE:
        assert getattr(decorated, option) == default
    assert getattr(decorated.options, option) == default


def test_callers_may_give_every_option_and_no_other() -> None:
    assert Arguments.__annotations__.keys() <= FlowArguments.__annotations__.keys()
    assert set(FlowArguments.__annotations__) == set(FlowOptions.names())
    assert set(TaskArguments.__annotations__) == set(TaskOptions.names())


def test_options_that_are_honoured_have_a_row_in_the_documentation() -> None:
    """One that is taken out of NOT_YET gets its row in docs/tasks-and-flows.md."""
    page = Path(__file__).parents[2].joinpath("docs/tasks-and-flows.md").read_text("utf-8")
    tables = page.partition("### Names of runs")[0]
    first_columns = re.findall(r"^\| (`[^|]*) \|", tables, re.MULTILINE)
    documented = {name for column in first_columns for name in re.findall(r"`(\w+)`", column)}

    assert documented == {name for _, name in OF_BOTH} - set(NOT_YET)


@pytest.mark.parametrize("decorate", [flow, task])
def test_with_options_changes_what_is_given_and_keeps_the_rest(decorate: Any) -> None:
    decorated = decorate(name="first", retries=2, tags=["a"])(load)

    other = decorated.with_options(retries=3, tags=["b"])

    assert (other.name, other.retries, other.tags) == ("first", 3, {"b"})
    assert (decorated.name, decorated.retries, decorated.tags) == ("first", 2, {"a"})
    assert other.fn is load


@pytest.mark.parametrize("decorate", [flow, task])
def test_attribute_that_is_no_option_is_missing(decorate: Any) -> None:
    with pytest.raises(AttributeError, match="no_such_option"):
        _ = decorate(load).no_such_option


# -- what None is to with_options: as the signatures of Prefect 3 have it ------------------------


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("option", ["name", "description", "tags"])
def test_none_keeps_an_option_in_with_options(decorate: Any, option: str) -> None:
    given = {"name": "first", "description": "what for", "tags": ["a"]}

    other = decorate(**given)(load).with_options(**{option: None})

    assert (other.name, other.description, other.tags) == ("first", "what for", {"a"})


def test_none_keeps_the_retries_of_a_flow_and_resets_those_of_a_task() -> None:
    given: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 3}
    none: dict[str, Any] = {"retries": None, "retry_delay_seconds": None}

    a_flow, a_task = flow(**given)(load), task(**given)(load)

    again = a_flow.with_options(**none)
    assert (again.retries, again.retry_delay_seconds) == (2, 3)
    anew = a_task.with_options(**none)
    assert (anew.retries, anew.retry_delay_seconds) == (0, 0)


def test_none_resets_the_names_of_task_runs_and_keeps_those_of_flow_runs() -> None:
    assert flow(flow_run_name="a")(load).with_options(flow_run_name=None).flow_run_name == "a"
    assert task(task_run_name="a")(load).with_options(task_run_name=None).task_run_name is None


def test_no_tags_take_the_place_of_tags() -> None:
    assert task(tags=["a"])(load).with_options(tags=[]).tags == set()


# -- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decorate", [flow, task])
def test_description_is_the_option_or_the_docstring(decorate: Any) -> None:
    def described() -> None:
        """What it does.

        And more.
        """

    assert decorate(described).description == "What it does.\n\nAnd more."
    assert decorate(description="given")(described).description == "given"
    assert decorate(load).description is None


def test_version_of_a_flow_is_given_or_a_hash_of_its_file() -> None:
    digest = hashlib.md5(Path(__file__).read_bytes(), usedforsecurity=False).hexdigest()
    namespace: dict[str, Any] = {}
    exec("def typed(): pass", namespace)

    assert flow(load).version == digest
    assert flow(version="2")(load).version == "2"
    assert flow(namespace["typed"]).version is None


def test_version_of_a_task_is_given_or_none() -> None:
    assert task(load).version is None
    assert task(version="2")(load).version == "2"


@pytest.mark.parametrize("decorate", [flow, task])
def test_decorated_function_says_whether_it_is_async(decorate: Any) -> None:
    async def fetch() -> None: ...

    assert decorate(fetch).isasync
    assert not decorate(load).isasync


# -- defaults from the environment ---------------------------------------------------------------


@pytest.mark.parametrize(("decorate", "kind"), [(flow, "FLOW"), (task, "TASK")])
def test_defaults_of_retries_are_read_from_the_environment_when_they_are_asked_for(
    decorate: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decorated, given = decorate(load), decorate(retries=1, retry_delay_seconds=2)(load)

    monkeypatch.setenv(f"EMBEDDED_ORCH_{kind}_DEFAULT_RETRIES", "7")
    monkeypatch.setenv(f"EMBEDDED_ORCH_{kind}_DEFAULT_RETRY_DELAY_SECONDS", "0.5")

    assert (decorated.retries, decorated.retry_delay_seconds) == (7, 0.5)
    assert (given.retries, given.retry_delay_seconds) == (1, 2)
    assert decorated.spec.policy.retries == 7


def test_delays_in_the_environment_may_be_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_TASK_DEFAULT_RETRY_DELAY_SECONDS", "[1, 2.5]")

    assert task(load).spec.policy.retry_delay == (1, 2.5)


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "true"])
def test_default_that_is_no_number_of_retries_is_refused_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_TASK_DEFAULT_RETRIES", text)

    with pytest.raises(errors.ConfigurationError, match="EMBEDDED_ORCH_TASK_DEFAULT_RETRIES="):
        _ = task(load).retries


# -- delays, jitter, conditions and names are checked when a function is decorated ---------------


def test_delays_may_be_made_from_the_number_of_retries() -> None:
    backing_off = task(retries=3, retry_delay_seconds=exponential_backoff(10))(load)

    assert backing_off.retry_delay_seconds == [10, 20, 40]
    assert backing_off.with_options(retries=2).retry_delay_seconds == [10, 20]
    assert len(exponential_backoff(1)(1000)) == 50


@pytest.mark.parametrize("factor", [-0.1, "much", True, float("inf")])
def test_jitter_that_delays_cannot_have_is_refused(factor: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="retry_jitter_factor="):
        task(retry_jitter_factor=factor)(load)


def test_condition_that_cannot_be_called_is_refused() -> None:
    wrong: Any = "always"
    with pytest.raises(errors.ConfigurationError, match="retry_condition_fn='always'"):
        task(retry_condition_fn=wrong)(load)


@pytest.mark.parametrize(
    ("naming", "says"),
    [
        (3, "give a template"),
        ("of {file}", "names 'file'; it can name path, deployment, flow_run, parameters, task_run"),
        ("of {path.name} {other[0]}", "names 'other'"),
        ("of {0}", "names '0'"),
        ("of {}", "names ''"),
        ("of {path", "no template"),
    ],
)
def test_name_that_cannot_be_made_is_refused(naming: Any, says: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=says):
        task(task_run_name=naming)(load)
    with pytest.raises(errors.ConfigurationError, match=says):
        flow(flow_run_name=naming)(load)

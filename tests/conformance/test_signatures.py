"""What a call to Prefect may give, and in which order, the same call gives here."""

from __future__ import annotations

import inspect
import json
from functools import reduce
from importlib import import_module
from inspect import Parameter
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Functions, classes and methods that are here too, as prefect 3.8.8 has them: what may be given by
# position, in order, and what by name only.
SIGNATURES: dict[str, dict[str, dict[str, list[str]]]] = json.loads(
    Path(__file__).with_name("prefect_signatures.json").read_text("utf-8")
)
CALLS = sorted((module, name) for module, calls in SIGNATURES.items() for name in calls)
# By the name of the parameter; docs/compatibility.md says so.
NOT_TAKEN = {
    "client",
    # of runners, for what is inside Prefect
    "dependencies",
    "subprocess_message_processor_factories",
    # with deployments and work pools
    "deployment_filter",
    "job_variables",
    "work_pool_filter",
    "work_pool_name",
    "work_queue_filter",
    "work_queue_name",
}
NOT_TAKEN_BY = {
    ("create_task_run", "task_inputs"),
    ("count_flow_runs", "task_run_filter"),
    ("read_flow_runs", "task_run_filter"),
    ("read_flows", "flow_run_filter"),
    ("read_flows", "sort"),
    ("read_flows", "task_run_filter"),
}


class Taken(NamedTuple):
    """What a callable of ours takes."""

    positional: list[str]
    by_name: set[str]
    all_names: bool


def taken_by(module: str, name: str) -> Taken:
    owner = import_module(module.replace("prefect", "embedded_orch", 1))
    found: Any = reduce(getattr, name.split("."), owner)
    parameters = [
        each
        for each in inspect.signature(found).parameters.values()
        if each.name not in {"self", "cls"}
    ]
    in_order = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
    return Taken(
        [each.name for each in parameters if each.kind in in_order],
        {each.name for each in parameters},
        any(each.kind is Parameter.VAR_KEYWORD for each in parameters),
    )


@pytest.mark.parametrize(("module", "name"), CALLS)
def test_what_prefect_takes_is_taken_in_its_order(module: str, name: str) -> None:
    theirs, ours = SIGNATURES[module][name], taken_by(module, name)
    method = name.rpartition(".")[2]
    not_taken = NOT_TAKEN | {each for of, each in NOT_TAKEN_BY if of == method}
    # What stands behind one that is not taken is given by name.
    positional = list(takewhile(lambda each: each not in not_taken, theirs["positional"]))
    wanted = {*theirs["positional"], *theirs["by_name"]} - not_taken

    assert ours.positional[: len(positional)] == positional
    assert ours.all_names or wanted <= ours.by_name

"""docs/compatibility.md lists every public name of Prefect, and says the truth about each."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from embedded_orch.engine.options import NOT_YET, FlowOptions, TaskOptions

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "compatibility.md"
# Module by module, and the options of both decorators: read off prefect 3.8.8.
NAMES: dict[str, list[str]] = json.loads((HERE / "prefect_names.json").read_text("utf-8"))
OPTIONS = {"@flow": FlowOptions, "@task": TaskOptions}
MODULES = sorted(set(NAMES) - set(OPTIONS))


def listed(heading: str) -> dict[str, list[str]]:
    """What the page says of the names of a section, by what it says."""
    _, _, rest = PAGE.read_text("utf-8").partition(f"### {heading}\n")
    section = re.split(r"^#|^Not planned are", rest, maxsplit=1, flags=re.MULTILINE)[0]
    lines = re.findall(r"^- ([^`]+): (`.*`)$", section, re.MULTILINE)
    return {label: re.findall(r"`([^`]+)`", names) for label, names in lines}


def has(module: str, name: str) -> bool:
    try:
        found = import_module(module.replace("prefect", "embedded_orch", 1))
    except ModuleNotFoundError:
        return False
    return hasattr(found, name)


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_a_module_is_listed_once(module: str) -> None:
    names = [name for found in listed(f"`{module}`").values() for name in found]

    assert sorted(names) == NAMES[module]


@pytest.mark.parametrize("module", MODULES)
def test_what_works_can_be_imported_and_nothing_else(module: str) -> None:
    """So that the page is mended with the commit that brings a name."""
    for label, names in listed(f"`{module}`").items():
        assert [has(module, name) for name in names] == [label == "works"] * len(names), label


@pytest.mark.parametrize("decorator", OPTIONS)
def test_every_option_of_a_decorator_is_listed_and_honoured_or_refused(decorator: str) -> None:
    found = listed(f"The options of `{decorator}`")
    later = {name for label, names in found.items() if label != "works" for name in names}

    assert {name for names in found.values() for name in names} == set(NAMES[decorator])
    assert set(NAMES[decorator]) <= set(OPTIONS[decorator].names())
    assert later == set(NAMES[decorator]) & set(NOT_YET)

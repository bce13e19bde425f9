"""Which task a record belongs to: the module and the qualified name of its function."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from embedded_orch import task


def a_function(module: str) -> Any:
    def load() -> None:
        """Something."""

    load.__module__ = module
    load.__qualname__ = "load"
    return load


def test_tasks_of_one_name_in_two_modules_are_two_tasks() -> None:
    assert task(a_function("shop.orders")).task_key == "shop.orders.load"
    assert task(a_function("shop.stock")).task_key == "shop.stock.load"


def test_a_script_counts_as_the_module_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = "/somewhere/nightly.py"
    main.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert task(a_function("__main__")).task_key == "nightly.load"


def test_a_notebook_has_no_file_to_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert task(a_function("__main__")).task_key == "__main__.load"

"""Forked children of a program that has opened nothing; most of them are to be killed."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

import embedded_orch
from embedded_orch.db.statements import Catalog


@cache
def prepare_to_fork() -> None:
    """Load every module of ours, and every statement, for half of a child's time would go there.

    Children share what is loaded, and collect no garbage of their parent's.
    """
    for module in pkgutil.walk_packages(embedded_orch.__path__, "embedded_orch."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # Migrations are compared by it, and it is imported then.
    importlib.import_module("hashlib")
    for catalog in (Catalog("sqlite"), Catalog("postgres")):
        catalog.load_all()
    gc.freeze()


def fork(work: Callable[[], object]) -> int:
    """The process id of a child that does this work and nothing else; it ends with 0 when well."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def in_child(work: Callable[[], object]) -> tuple[int, Any]:
    """How a child ended that did this work, and its answer, by way of JSON; None if it died."""
    read_end, write_end = os.pipe()

    def answer() -> None:
        os.close(read_end)
        with open(write_end, "w", encoding="utf-8") as file:
            json.dump(work(), file)

    pid = fork(answer)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as file:
        text = file.read()
    status = os.waitpid(pid, 0)[1]
    return status, json.loads(text) if status == 0 else None

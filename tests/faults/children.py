"""Forked children of a program that has opened nothing; most of them are to be killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any


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

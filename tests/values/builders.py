"""What tests of values need around them: loaded modules, other interpreters, written tags."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import types
from typing import Any

import msgspec


def tagged(kind: str, payload: object) -> bytes:
    """A tagged value as anybody could write it."""
    return msgspec.json.encode({kind: payload})


def nested(levels: int, innermost: object = None) -> object:
    """A list in a list in a list."""
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


class as_module:  # noqa: N801 (used like a function)
    """A loaded module of this name that has these things, and they believe to come from it."""

    def __init__(self, name: str, **things: Any) -> None:
        self._module: Any = types.ModuleType(name)
        for key, thing in things.items():
            if isinstance(thing, type):
                thing.__module__, thing.__qualname__ = name, key
            setattr(self._module, key, thing)

    def __enter__(self) -> Any:
        sys.modules[self._module.__name__] = self._module
        return self._module

    def __exit__(self, *_: object) -> None:
        del sys.modules[self._module.__name__]


def run_python(*arguments: str, path: pathlib.Path | None = None, **environment: str) -> str:
    """What a new interpreter prints that runs a script, a module or a text."""
    if "\n" in arguments[0]:
        arguments = ("-c", *arguments)
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=path or root,
        env={"PYTHONPATH": f"{root}:{path or root}", "PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

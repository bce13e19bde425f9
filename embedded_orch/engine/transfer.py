"""Functions, values and errors on their way to another process and back.

All of it is pickled, by the program's own processes for each other. What can be imported by its
name goes as that name. The rest, such as what a notebook or ``python -c`` defines, goes as it is,
and only cloudpickle can do that; it comes with the extra ``[processes]``. Without it, the process
imports the main script once something of it is needed, as multiprocessing does.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from embedded_orch.errors import FailedRun, MissingExtra, ValueNotPicklable

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN_MODULES = ("__main__", "__mp_main__")
_EXTRA = "pip install 'embedded_orch[processes]'"


class Name(NamedTuple):
    """A function that the other process imports."""

    module: str
    qualified_name: str

    def find(self) -> Callable[..., Any]:
        """The function itself, below the decorator of a task if it has one.

        Raises:
            ImportError, AttributeError: there is none of this name.
        """
        import importlib

        found: Any = importlib.import_module(self.module)
        for part in self.qualified_name.split("."):
            found = getattr(found, part)
        # A task that is decorated again is a task of a task.
        while getattr(found, "task_key", None) is not None:
            found = found.fn
        function: Callable[..., Any] = found
        return function


class MainModule(NamedTuple):
    """How another process imports what runs here as ``__main__``."""

    module: str | None
    path: str | None

    @classmethod
    def of_this_process(cls) -> MainModule:
        """The main module of this process; it has neither in a notebook and by ``python -c``."""
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        if spec is not None:
            return cls(str(spec.name), None)
        return cls(None, getattr(main, "__file__", None))

    @property
    def can_be_imported(self) -> bool:
        """Whether another process can import it at all."""
        return self.module is not None or self.path is not None

    def import_it(self) -> None:
        """Run it, so that it is found as ``__main__``; its ``__name__`` is another.

        Raises:
            BaseException: what it raised.
        """
        import runpy
        import types

        main = types.ModuleType("__mp_main__")
        # It is there before it is whole, so that what it defines can be pickled while it runs.
        sys.modules["__mp_main__"] = main
        if self.module is not None:
            content = runpy.run_module(self.module, run_name="__mp_main__", alter_sys=False)
        else:
            assert self.path is not None, "who can be imported has a name or a path"
            content = runpy.run_path(self.path, run_name="__mp_main__")
        main.__dict__.update(content)
        sys.modules["__main__"] = main


def cloudpickle() -> Any:
    """The module, or None when it is not installed."""
    import importlib

    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        # The extra is not installed; functions and classes go by their names.
        return None


def packed_function(function: Callable[..., Any], label: str) -> bytes:
    """A function, or its :class:`Name`, pickled.

    Raises:
        MissingExtra: it can only go as it is, and nothing is installed that can do that.
        ValueNotPicklable: it holds what no other process can have.
    """
    by_value = cloudpickle()
    name = Name(
        getattr(function, "__module__", None) or "", getattr(function, "__qualname__", None) or ""
    )
    is_of_main = name.module in MAIN_MODULES
    can_go_by_name = not is_of_main or MainModule.of_this_process().can_be_imported
    if can_go_by_name and (by_value is None or not is_of_main) and _names(name, function):
        return pickle.dumps(name)
    if by_value is None and hasattr(function, "__code__"):
        raise MissingExtra(
            f"{label} is not a function that another process can import by its name, and what it "
            f"would take to send it is not installed: {_EXTRA}; or define it at the top of a module"
        )
    return packed(function, label)


def _names(name: Name, function: Callable[..., Any]) -> bool:
    try:
        return name.find() is function
    except (ImportError, AttributeError, ValueError):
        return False


def packed(value: object, label: str) -> bytes:
    """A value for :func:`unpacked`, or ``pickle.loads``.

    Raises:
        ValueNotPicklable: it cannot leave this process.
    """
    by_value = cloudpickle()
    try:
        data: bytes = (by_value or pickle).dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        message = f"{label} cannot go to another process: {type(error).__name__}: {error}"
        if by_value is None:
            message += f"; functions and classes that have no name to import them by need {_EXTRA}"
        raise ValueNotPicklable(message) from error
    return data


def unpacked(data: bytes, label: str) -> Any:
    """The value.

    Raises:
        ValueNotPicklable: it cannot be made here.
    """
    try:
        return pickle.loads(data)  # noqa: S301 - from a process of our own
    except Exception as error:
        raise ValueNotPicklable(
            f"{label} came from another process and cannot be made here: "
            f"{type(error).__name__}: {error}"
        ) from error


class Unpickler(pickle.Unpickler):
    """Imports the main script when something of it is needed, and not before."""

    def __init__(self, data: bytes, import_main: Callable[[], None]) -> None:
        super().__init__(io.BytesIO(data))
        self._import_main = import_main

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What a name in the pickle stands for."""
        if module_name in MAIN_MODULES:
            self._import_main()
        return super().find_class(module_name, global_name)


def packed_error(error: BaseException, place: str) -> bytes:
    """An exception with its traceback as a note; another one that tells of it if it cannot go."""
    import traceback

    note = f"in {place}:\n{''.join(traceback.format_exception(error)).rstrip()}"
    try:
        error.add_note(note)
        data = packed(error, "an exception")
        # Exceptions whose arguments are not those of their class come apart only here.
        unpacked(data, "an exception")
    except Exception:  # noqa: BLE001 - the user's exception, and what its class does
        told = FailedRun(f"{type(error).__name__}: {text_of(error)}")
        told.add_note(note)
        return pickle.dumps(told)
    return data


def text_of(error: BaseException) -> str:
    """What it says, if it can be had."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the __str__ of a user's class
        return "its text could not be made"

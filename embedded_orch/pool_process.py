"""What runs in a process of a process pool: one call after the other, in the main thread.

The process that started it owns the runs and has the database. Here there is none: the function of
a task finds the context of its run, and calls of flows and tasks are refused.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.engine.contexts import (
    FlowRunContext,
    TaskRunContext,
    flow_run_context,
    task_run_context,
)
from embedded_orch.engine.printing import keeping_prints
from embedded_orch.engine.processes import Request, Setup
from embedded_orch.engine.run_logging import HandlerElsewhere, listen
from embedded_orch.engine.transfer import (
    MAIN_MODULES,
    Name,
    Unpickler,
    packed,
    packed_error,
    text_of,
)
from embedded_orch.orchestrator import registry
from embedded_orch.values.secret import in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection
    from types import FrameType

# How long what runs here may take to end when nobody waits for it any more.
_GRACE_SECONDS = 0.5
_NO_DATABASE = (
    "runs in a process of a pool, which has no database: flows and tasks cannot be called here, "
    "nor runs be looked up. Call the function itself, task.fn(...), or call the task from the flow"
)
_NO_GUARD = (
    "the main script calls a flow or opens a database while it is imported, as the processes of a "
    "pool do to find its tasks. Put that below `if __name__ == '__main__':`, or move the tasks to "
    "a module, or pip install 'embedded_orch[processes]'"
)


class Stopped(BaseException):
    """This process is to end."""


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes it.

    Args:
        descriptor: of the socket.
    """
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGTERM, _stop)
    # Not for what is started here: it would keep the socket open when this process is dead.
    os.set_inheritable(descriptor, False)
    try:
        Service(Connection(descriptor)).serve()
    except Stopped:
        # Asked to by the one who was served, or by his death.
        return


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


class Service:
    """The calls that come over one connection."""

    def __init__(self, connection: Connection) -> None:
        import queue

        self._connection = connection
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._setup = Setup(*pickle.loads(connection.recv_bytes()))  # noqa: S301 - our own
        self._has_main = False
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._initializing: BaseException | None = None
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Answer until the other end is closed.

        Raises:
            Stopped: it was.
        """
        sys.argv[:] = self._setup.argv
        registry.refuse(f"this code {_NO_DATABASE}")
        logging.getLogger().setLevel(self._setup.log_level)
        logging.getLogger().addHandler(_Forwarding(self._send))
        listen(HandlerElsewhere)
        threading.Thread(target=self._receive, name="embedded_orch requests", daemon=True).start()
        self._initialize()
        while True:
            self._send(*self._answer(self._requests.get()))

    def _receive(self) -> None:
        """Take requests as they come, and see it when there will be no more."""
        try:
            while True:
                self._requests.put(self._connection.recv_bytes())
        except (EOFError, OSError):
            # The process that was served has closed the pool, or is dead.
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(_GRACE_SECONDS)
        os._exit(1)

    def _send(self, kind: str, data: bytes) -> None:
        try:
            with self._sending:
                self._connection.send_bytes(pickle.dumps((kind, data)))
        except OSError as error:
            # Nobody is there to hear it.
            raise Stopped from error

    # -- one call --------------------------------------------------------------------------------

    def _initialize(self) -> None:
        if self._setup.initialize is None:
            return
        try:
            function, arguments = self._load(self._setup.initialize)
            self._function(function)(*self._load(arguments))
        except Exception as error:  # noqa: BLE001 - the user's initializer
            self._initializing = error

    def _answer(self, data: bytes) -> tuple[str, bytes]:
        place = f"process {os.getpid()} of the pool"
        try:
            if self._initializing is not None:
                raise errors.ProcessPoolError(
                    f"the initializer of the process pool raised {self._initializing!r}"
                ) from self._initializing
            request = Request(*self._load(data))
            return "value", packed(self._call(request), f"the result of {request.label}")
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            return "error", packed_error(error, place)

    def _call(self, request: Request) -> Any:
        function = self._function(request.function)
        args, kwargs, parameters = self._load(request.arguments)
        missing = _NotHere(request.label, self._send)
        flow_run = None
        if request.flow_run is not None:
            flow_run = _restored(FlowRunContext, request.flow_run, missing)
            if request.parameters is not None:
                flow_run.parameters = self._load(request.parameters)
        task_run = _restored(TaskRunContext, request.task_run, missing)
        task_run.flow_run, task_run.parameters = flow_run, parameters
        tokens = flow_run_context.set(flow_run), task_run_context.set(task_run)
        try:
            with keeping_prints(task_run.log_prints):
                return _called(function, args, kwargs, request.backend)
        finally:
            flow_run_context.reset(tokens[0])
            task_run_context.reset(tokens[1])

    def _function(self, data: bytes) -> Callable[..., Any]:
        found = self._functions.get(data)
        if found is None:
            found = self._load(data)
            if isinstance(found, Name):
                if found.module in MAIN_MODULES:
                    self._import_main()
                found = found.find()
            self._functions[data] = found
        return found

    def _load(self, data: bytes) -> Any:
        return Unpickler(data, self._import_main).load()

    def _import_main(self) -> None:
        if self._has_main:
            return
        main = self._setup.main
        registry.refuse(_NO_GUARD)
        try:
            main.import_it()
        except Stopped:
            raise
        except BaseException as error:
            raise errors.ProcessPoolError(
                f"a process of the pool could not import the main script "
                f"({main.module or main.path}): {type(error).__name__}: {text_of(error)}"
            ) from error
        finally:
            registry.refuse(f"this code {_NO_DATABASE}")
        self._has_main = True


def _called(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    backend: str | None,
) -> Any:
    if backend is None:
        value = function(*args, **kwargs)
        # A generator does not travel; its items do.
        return list(value) if isinstance(value, GeneratorType) else value
    import anyio

    async def run() -> Any:
        value = function(*args, **kwargs)
        if isinstance(value, AsyncGeneratorType):
            return [item async for item in value]
        return await value

    return anyio.run(run, backend=backend)


class _Forwarding(logging.Handler):
    """Hands records over to the process that is served, which treats them as its own."""

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        super().__init__()
        self._forward = send

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it over, with all that is no text made text, and without the secrets made here."""
        fields = dict(vars(record))
        fields["msg"], fields["args"] = in_use.masked(record.getMessage()), None
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            fields["exc_text"] = in_use.masked(trace)
        fields["exc_info"] = None
        kept = {name: value for name, value in fields.items() if isinstance(value, _LOGGED)}
        self._forward("log", pickle.dumps(kept))


_LOGGED = (str, int, float, type(None))


class _ForwardedLines:
    """Hands over what a run prints to the queue of the process that is served."""

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        self._forward = send

    def put(self, level: int, name: str, message: str, *_: object) -> None:
        """Hand a line over; it belongs to the run that is called here."""
        self._forward("line", pickle.dumps((level, name, message)))


class _NotHere:
    """Stands for what only the process has that is served."""

    def __init__(self, label: str, send: Callable[[str, bytes], None]) -> None:
        self._label = label
        self.logs = _ForwardedLines(send)

    def __getattr__(self, name: str) -> Any:
        raise errors.MissingContextError(f"{self._label} {_NO_DATABASE}")


class _Spec:
    """As much of a flow or task as its context tells."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        vars(self).update(facts)


def _restored(kind: Any, facts: Mapping[str, Any], missing: _NotHere) -> Any:
    """A context with what is known of it here."""
    context = kind.__new__(kind)
    caller = facts["caller"]
    known = {
        **facts,
        "flow": _Spec(facts["spec"]),
        "task": _Spec(facts["spec"]),
        "caller": None if caller is None else _restored(FlowRunContext, caller, missing),
    }
    for name in kind.__slots__:
        if name == "__weakref__":
            continue
        setattr(context, name, known.get(name, missing))
    return context

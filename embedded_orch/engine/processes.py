"""A pool of processes for the functions of tasks.

A worker of the runner drives a task as any other does: it records the start, the result, the
retries. Only the call of the function takes place in a process of the pool, which the worker lends
for that time. So who owns the run, what is durable and how it is resumed does not depend on it.

The processes are started anew, never forked, and end with the pool, with the death of this process,
and with the worker that waits for them: whatever makes it leave stops the process too.
"""

from __future__ import annotations

import pickle
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from embedded_orch import errors
from embedded_orch.engine.contexts import current_flow_run, current_task_run
from embedded_orch.engine.interruption import ProcessDied
from embedded_orch.engine.runner import Runner
from embedded_orch.engine.running import backend_of_running_loop
from embedded_orch.engine.transfer import MainModule, packed, packed_function, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection
    from subprocess import Popen

    from embedded_orch.engine.contexts import FlowRunContext, TaskRunContext
    from embedded_orch.engine.specs import TaskSpec
    from embedded_orch.engine.task_call import TaskCall

# How long a process that is asked to end may take for it, before it is killed.
_GRACE_SECONDS = 0.5
# How often a worker that waits for a process looks whether both are still wanted.
_GLANCE_MILLISECONDS = 250
# Parameters of the flow that are larger do not go to each of its tasks.
_MOST_PARAMETERS_BYTES = 16_384
_PLAIN = (str, int, float, bytes, frozenset, tuple, UUID, type(None))


class Setup(NamedTuple):
    """What a process is told when it starts."""

    main: MainModule
    argv: list[str]
    log_level: int
    initialize: bytes | None


class Request(NamedTuple):
    """One call of a function.

    Attributes:
        function: pickled, by name or as it is.
        arguments: positional ones, those by name, and all by parameter, pickled together.
        backend: of the loop that it is run on; None for a plain function.
        label: what to call the run in messages.
        task_run: what the context of the task run holds, as far as it can go.
        flow_run: the same of the flow run, if there is one.
        parameters: of the flow, pickled, as far as they can go.
    """

    function: bytes
    arguments: bytes
    backend: str | None
    label: str
    task_run: Mapping[str, Any]
    flow_run: Mapping[str, Any] | None
    parameters: bytes | None


class Process:
    """One process of a pool, as this process sees it. One worker at a time uses it.

    Args:
        program: the module whose ``main(descriptor)`` it runs.
        setup: what it is told first.
    """

    def __init__(self, program: str, setup: Setup) -> None:
        import select
        import socket
        import subprocess
        from multiprocessing.connection import Connection

        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; import {program} as program; "
            f"program.main({theirs.fileno()})"
        )
        options = [option for each in sys.warnoptions for option in ("-W", each)]
        try:
            self._process: Popen[bytes] = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, *options, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for this process, which ends the others.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._connection: Connection = Connection(ours.detach())
        # Connection.poll() makes a selector each time, which takes 40 times as long.
        self._answers = select.poll()
        self._answers.register(self._connection, select.POLLIN)
        self._send(pickle.dumps(tuple(setup)))

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def call(self, request: bytes) -> tuple[bool, bytes]:
        """Have it make a call; whether the function returned, and what it returned or raised.

        Raises:
            ProcessDied: it ended before it answered.
        """
        self._send(request)
        while True:
            kind, answer = self._receive()
            if kind == "log":
                _handle_again(answer)
            elif kind == "line":
                _keep(answer)
            else:
                return kind == "value", answer

    def end(self) -> None:
        """Let it end by itself, since nobody will ask it for anything; it has to soon."""
        self._connection.close()
        self._wait_or_kill()

    def stop(self) -> None:
        """Have what it does interrupted, and end it."""
        self._process.terminate()
        self._wait_or_kill()
        self._connection.close()

    def _wait_or_kill(self) -> None:
        import subprocess

        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, data: bytes) -> None:
        try:
            self._connection.send_bytes(data)
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> tuple[str, bytes]:
        try:
            # Not without an end: processes that it forked may hold its side open when it is dead.
            while not self._answers.poll(_GLANCE_MILLISECONDS):
                if self._process.poll() is not None:
                    raise self._died()
            kind, answer = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own
        except (EOFError, OSError) as error:
            raise self._died() from error
        return kind, answer

    def _died(self) -> ProcessDied:
        self._wait_or_kill()
        code = self._process.returncode
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += ", as the kernel does when memory runs out"
        return ProcessDied(f"the process that ran it (pid {self.pid}) {how}")

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"


class Pool:
    """Processes that are started when they are needed, and used again. Any thread may call."""

    def __init__(self, program: str, setup: Setup) -> None:
        self._program = program
        self._setup = setup
        self._lock = threading.Lock()
        self._idle: list[Process] = []

    def call(self, request: bytes) -> tuple[bool, bytes]:
        """Make a call in a process; see :meth:`Process.call`."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is None:
            process = Process(self._program, self._setup)
        try:
            answer = process.call(request)
        except BaseException:
            # Dead, or the call is not wanted any more.
            process.stop()
            raise
        with self._lock:
            self._idle.append(process)
        return answer

    def close(self) -> None:
        """End the processes; none is in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()


class ProcessRunner(Runner):
    """A runner whose tasks run in processes.

    Args:
        max_workers: how many may run at one time.
        program: the module whose ``main(descriptor)`` each process runs.
        initialize: what each process calls when it starts, and its arguments.
    """

    def __init__(
        self,
        max_workers: int,
        *,
        program: str,
        initialize: tuple[Callable[..., object], tuple[Any, ...]] | None,
    ) -> None:
        super().__init__(max_workers)
        import logging

        # What comes back by the name that the main module has in the other process.
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
        setup = Setup(
            MainModule.of_this_process(),
            sys.argv,
            logging.getLogger().level,
            None if initialize is None else _packed_initializer(*initialize),
        )
        self._pool = Pool(program, setup)
        self._functions: dict[Callable[..., Any], bytes] = {}
        self._parameters: bytes | None = None
        self._has_parameters = False

    def prepare(self, call: TaskCall) -> None:
        """Have the function of a call run in a process."""
        function, backend = call.function, backend_of_running_loop() if call.is_async else None

        def call_elsewhere(*args: Any, **kwargs: Any) -> Any:
            return self._call(function, args, kwargs, backend)

        call.function, call.is_async = call_elsewhere, False

    def stop(self) -> None:
        """Cancel what has not begun, wait for what has, and let threads and processes go."""
        super().stop()
        self._pool.close()

    def _call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        backend: str | None,
    ) -> Any:
        task_run, flow_run = current_task_run(), current_flow_run()
        assert task_run is not None, "the function of a task is called in its run"
        label = f"task run {task_run.name}"
        request = Request(
            function=self._packed_function(function, task_run.task),
            arguments=packed((args, kwargs, task_run.parameters), f"the arguments of {label}"),
            backend=backend,
            label=label,
            task_run=_facts_of(task_run, task_run.task),
            flow_run=None if flow_run is None else _facts_of(flow_run, flow_run.flow),
            parameters=None if flow_run is None else self._packed_parameters(flow_run),
        )
        has_returned, answer = self._pool.call(pickle.dumps(tuple(request)))
        if has_returned:
            return unpacked(answer, f"the result of {label}")
        raise unpacked(answer, f"the exception of {label}")

    def _packed_function(self, function: Callable[..., Any], task: TaskSpec) -> bytes:
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = packed_function(function, f"task {task.name}")
        return found

    def _packed_parameters(self, flow_run: FlowRunContext) -> bytes | None:
        if not self._has_parameters:
            try:
                data = packed(flow_run.parameters, "the parameters of the flow")
            except errors.ValueNotPicklable:
                # Its tasks can do without, unless they ask for them.
                data = b""
            if 0 < len(data) <= _MOST_PARAMETERS_BYTES:
                self._parameters = data
            self._has_parameters = True
        return self._parameters


def _packed_initializer(function: Callable[..., object], arguments: tuple[Any, ...]) -> bytes:
    label = "the initializer of the process pool"
    return pickle.dumps((packed_function(function, label), packed(arguments, label)))


def _facts_of(context: FlowRunContext | TaskRunContext, spec: Any) -> dict[str, Any]:
    """What a context holds that means the same in another process."""
    public = [name for name in type(context).__slots__ if not name.startswith("_")]
    facts = {name: getattr(context, name) for name in public}
    plain = {name: value for name, value in facts.items() if isinstance(value, _PLAIN)}
    caller = facts.get("caller")
    return {
        **plain,
        "caller": None if caller is None else _facts_of(caller, caller.flow),
        "spec": {name: getattr(spec, name, None) for name in ("name", "key", "tags", "version")},
    }


def _keep(line: bytes) -> None:
    """A line that the process printed, which is shown already."""
    run = current_task_run()
    if run is not None:
        level, name, message = pickle.loads(line)  # noqa: S301 - from a process of our own
        run.engine.logs.put(level, name, message, run.flow_run_id, run.task_run_id)


def _handle_again(record: bytes) -> None:
    """A log record of the process, in the thread and context of its task."""
    import logging

    found = logging.makeLogRecord(pickle.loads(record))  # noqa: S301 - from a process of our own
    logger = logging.getLogger(found.name)
    if logger.isEnabledFor(found.levelno):
        logger.handle(found)

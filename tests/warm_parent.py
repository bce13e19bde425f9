"""A process that has every module loaded and nothing open, and forks the programs of tests.

A new interpreter spends ten times what a fork costs, most of it on imports, and hundreds of tests
start programs. Each test process has one such parent, started when it is first asked for; it ends
when the test process does.

What depends on a new interpreter is not for it: what is imported when, the command line, how a
program that somebody runs begins. Such programs are started by ``tests.programs.run_program``.
A forked program ends as any other does, by the interpreter's own way out.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from textwrap import dedent
from types import ModuleType
from typing import IO, Any

from tests.faults.children import prepare_to_fork
from tests.programs import PATIENCE, ROOT, environment

_LARGEST_REQUEST = 1 << 17


class Program:
    """A forked program; as much of ``subprocess.Popen`` as tests need.

    Args:
        text: the program.
        arguments: what it finds in ``sys.argv[1:]``.
        stdin: what it reads: a descriptor.
        stdout: where it writes: a descriptor.
        stderr: where it writes what went wrong: a descriptor, that of this process by default.
        added: to its environment.
    """

    def __init__(
        self,
        text: str,
        *arguments: object,
        stdin: int,
        stdout: int,
        stderr: int = 2,
        **added: str,
    ) -> None:
        request = {
            "text": dedent(text),
            "arguments": [str(argument) for argument in arguments],
            "environment": environment(**added),
        }
        read_end, write_end = os.pipe()
        self._report: IO[str] = open(read_end, encoding="ascii")  # noqa: SIM115
        socket.send_fds(
            _requests(), [json.dumps(request).encode()], [stdin, stdout, stderr, write_end]
        )
        os.close(write_end)
        self.pid = int(self._report.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float = PATIENCE) -> int:
        """How it ended, told as ``subprocess`` tells it.

        Raises:
            TimeoutError: it has not, after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise TimeoutError(f"the forked program {self.pid} has not ended")
            with self._report:
                self.returncode = os.waitstatus_to_exitcode(int(self._report.readline()))
        return self.returncode

    def poll(self) -> int | None:
        """How it ended; None while it has not."""
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            # Its parent may have heard of its end a moment ago, and not told of it yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to write anything down, and is gone when this returns."""
        self.send_signal(signal.SIGKILL)
        self.wait()


class Talking(Program):
    """A forked program that one reads from and writes to; use :func:`talking`.

    Attributes:
        stdin: what it reads.
        stdout: what it has written.
    """

    def __init__(self, text: str, *arguments: object, **added: str) -> None:
        to_read, written = os.pipe()
        read, to_write = os.pipe()
        super().__init__(text, *arguments, stdin=to_read, stdout=to_write, **added)
        os.close(to_read)
        os.close(to_write)
        self.stdin = open(written, "w", encoding="utf-8")  # noqa: SIM115
        self.stdout = open(read, encoding="utf-8")  # noqa: SIM115

    def end(self) -> None:
        """Kill it if it still runs, and close what one talks to it by."""
        self.kill()
        self.stdout.close()
        # What it has not read is lost.
        try:
            self.stdin.close()
        except BrokenPipeError:
            return


@contextmanager
def talking(text: str, *arguments: object, **added: str) -> Iterator[Talking]:
    """A forked program, killed at the end."""
    program = Talking(text, *arguments, **added)
    try:
        yield program
    finally:
        program.end()


def run_forked(
    text: str, *arguments: object, patience: float = PATIENCE, **added: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it has failed when that does not come."""
    with (
        open(os.devnull, "rb") as nothing,
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
    ):
        program = Program(
            text,
            *arguments,
            stdin=nothing.fileno(),
            stdout=output.fileno(),
            stderr=errors.fileno(),
            **added,
        )
        try:
            status = program.wait(patience)
        finally:
            program.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([text], status, output.read(), errors.read())


@cache
def _requests() -> socket.socket:
    """Where this process asks its parent of programs."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_REQUEST)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_parent", str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )
    atexit.register(_end, here, process, os.getpid())
    return here


def _end(requests: socket.socket, process: subprocess.Popen[bytes], asked_by: int) -> None:
    """Have a warm parent end, unless this is a fork of the process that asked it."""
    if os.getpid() == asked_by:
        requests.close()
        process.wait(PATIENCE)


# -- in the parent ---------------------------------------------------------------------------------


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request, in which this returns it; None in the parent, at the end."""
    awoken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, awoken], [], [])
        if awoken in ready:
            awoken.recv(4096)
            _report_ended(reports)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 4)
        if not message:
            return None
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for kept in (requests, awoken, wakes):
                kept.close()
            for number, descriptor in enumerate(descriptors[:3]):
                os.dup2(descriptor, number)
            for descriptor in (*descriptors, *reports.values()):
                os.close(descriptor)
            request: dict[str, Any] = json.loads(message)
            return request
        *given, reports[pid] = descriptors
        for descriptor in given:
            os.close(descriptor)
        _tell(reports[pid], pid)


def _report_ended(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        report = reports.pop(pid)
        _tell(report, status)
        os.close(report)


def _tell(report: int, number: int) -> None:
    try:
        os.write(report, f"{number}\n".encode())
    except BrokenPipeError:
        # Whoever started it has gone, or does not want to know.
        return


def become(program: dict[str, Any]) -> None:
    """Run a program in this process, as the interpreter does with ``-c``."""
    os.environ.clear()
    os.environ.update(program["environment"])
    time.tzset()
    sys.argv[:] = ["-c", *program["arguments"]]
    sys.path[0] = ""
    namespace = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(program["text"], "<string>", "exec"), namespace.__dict__)


def main(descriptor: int) -> None:
    """Be a warm parent, for whoever has the other end of a socket."""
    for module in ("tests.crashing", "tests.owners", "tests.faults.kill_points"):
        importlib.import_module(module)
    prepare_to_fork()
    try:
        program = serve(socket.socket(fileno=descriptor))
    except KeyboardInterrupt:
        # It was meant for the tests.
        return
    if program is not None:
        become(program)


if __name__ == "__main__":
    main(int(sys.argv[1]))

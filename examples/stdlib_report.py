"""Read every source file of the Python standard library, and write a report about it.

    python examples/stdlib_report.py                     the whole job, once
    python examples/stdlib_report.py --kill-after 300    the same, shot dead by SIGKILL on the way,
    python examples/stdlib_report.py --resume            and finished without reading a file twice

The tasks and the flow are ordinary functions with a decorator. What a task returned is in the
database before the flow sees it, so a process that dies at any moment loses the files it had in
its hands and nothing else. What a file tells is in ``source_facts.py``, the pages that are written
in ``report_pages.py``; neither knows that it is part of a flow.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import signal
import sys
import sysconfig
import threading
import time
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from report_pages import as_html, as_markdown
from source_facts import FileFacts, facts_of, gather

import embedded_orch
from embedded_orch import flow, task

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from uuid import UUID

    from embedded_orch.futures import Future

STDLIB = sysconfig.get_path("stdlib")
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
TESTS = {"test", "tests", "idle_test"}


# -- The tasks -----------------------------------------------------------------------------------


@task
def list_sources(root: str, everything: bool) -> list[str]:
    """The files to read, in order. As a task, so that a resumed run works on the same list."""
    left_out = NOT_THE_LIBRARY if everything else NOT_THE_LIBRARY | TESTS
    paths: list[str] = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in left_out]
        paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(paths)


@task
def make_broken_files(out: str) -> list[str]:
    """What no program likes to meet: files that are no Python, and some that cannot be read."""
    folder = Path(out, "broken")
    (folder / "a_folder.py").mkdir(parents=True, exist_ok=True)
    (folder / "half_a_function.py").write_bytes(b"def half(\n")
    (folder / "not_utf8.py").write_bytes(b"name = '\xff\xfe'\n")
    (folder / "null_byte.py").write_bytes(b"zero = '\0'\n")
    (folder / "tabs_or_spaces.py").write_bytes(b"if 1:\n\tx = 1\n        y = 2\n")
    vanished = folder / "vanished.py"  # listed, and gone before anybody reads it
    return sorted(str(path) for path in (*folder.iterdir(), vanished))


@task(retries=2, retry_delay_seconds=0.1)
def analyse(path: str) -> FileFacts:
    """What the file at ``path`` contains. Disks have bad moments, so it is tried three times."""
    with WATCH.reading(path):
        return facts_of(Path(path).read_bytes())


@task
def write_file(path: str, text: str) -> str:
    """Put ``text`` at ``path``, whole or not at all, and return its SHA-256."""
    data = text.encode("utf-8", "backslashreplace")
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    return hashlib.sha256(data).hexdigest()


# -- The flow ------------------------------------------------------------------------------------


class Summary(TypedDict):
    """What the flow returns."""

    totals: dict[str, int]
    reports: dict[str, str]  # path and SHA-256


@flow(name="stdlib-report")
def stdlib_report(root: str, out: str, everything: bool) -> Summary:
    """Read the sources below ``root`` and write ``report.md`` and ``report.html`` into ``out``."""
    sources = {shown(path, root): path for path in list_sources(root, everything)}
    sources |= {shown(path, out): path for path in make_broken_files(out)}
    facts: dict[str, FileFacts] = {}
    unreadable: dict[str, str] = {}
    WATCH.start(len(sources))
    futures = {name: submit(path) for name, path in sources.items()}
    for name, future in futures.items():
        try:
            facts[name] = future.result()
        except OSError as error:
            unreadable[name] = f"{type(error).__name__}: {error.strerror}"
    # Quick, and the same for the same facts, so no task: a resumed run just does it again.
    report = gather(title_of(root), facts, unreadable)
    pages = {"report.md": as_markdown(report), "report.html": as_html(report)}
    reports = {os.path.join(out, name): text for name, text in pages.items()}
    return Summary(
        totals=report.totals,
        reports={path: write_file(path, text) for path, text in reports.items()},
    )


def submit(path: str) -> Future[FileFacts]:
    """Have a file analysed, and the watch told as soon as that is on record."""
    future = analyse.submit(path)
    future.add_done_callback(
        lambda ended: WATCH.finish(path, is_recorded=ended.state.is_completed())
    )
    return future


def shown(path: str, folder: str) -> str:
    """The name of a file in the report, the same on every system."""
    return Path(path).relative_to(folder).as_posix()


def title_of(root: str) -> str:
    """What the report is about."""
    if root == os.path.realpath(STDLIB):
        return f"The standard library of Python {platform.python_version()}"
    return f"The Python sources in {root}"


# -- What this process does ----------------------------------------------------------------------


class Watch:
    """Follows the work of this process: shows progress, keeps a trace, and pulls the trigger.

    The database tells what was done; only the process itself can tell what it did not do again.
    Tasks use it in their threads.

    Attributes:
        slots: held while a file is read; a semaphore limits how many are read at a time.
        trace: a file that gets a line when a source is begun, ended, and its facts are recorded.
        kill_after: after so many files that were done here, this process is killed.
    """

    def __init__(self) -> None:
        self.slots: AbstractContextManager[object] = nullcontext()
        self.trace: str | None = None
        self.kill_after: int | None = None
        self.done_here = self.from_record = self.failed = 0
        self._begun: set[str] = set()
        self._lock = threading.Lock()
        self._total = 0
        self._shown = "0"

    def start(self, total: int) -> None:
        """There are ``total`` files to do, in all."""
        self._total = total

    @contextmanager
    def reading(self, path: str) -> Generator[None, None, None]:
        """Around what the function of a task does with ``path``."""
        with self.slots:
            with self._lock:
                self._begun.add(path)
            self._write("begun", path)
            try:
                yield
            finally:
                self._write("ended", path)

    def finish(self, path: str, *, is_recorded: bool) -> None:
        """What became of ``path`` is on record: its facts, or a failure."""
        with self._lock:
            if not is_recorded:
                self.failed += 1
            elif path in self._begun:
                self.done_here += 1
            else:
                self.from_record += 1
            if is_recorded:
                self._write("recorded", path)
            self._show(sys.stdout.isatty())
            if is_recorded and self.done_here == self.kill_after:
                print(f"\nKilling this process, which has done {self.done_here} files.", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, event: str, path: str) -> None:
        if self.trace is None:
            return
        # One write() to a file opened for appending: the lines of threads never mix, and what was
        # written stays written when the process is killed.
        file = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, os.fsencode(f"{event} {path}\n"))
        finally:
            os.close(file)

    def _show(self, is_terminal: bool) -> None:
        """On a terminal one line that is written over, elsewhere a line for each tenth."""
        finished = self.done_here + self.from_record + self.failed
        percent = 100 * finished // self._total
        line = f"{finished:5,} of {self._total:,} files  {percent:3}%"
        if self.from_record:
            line += f"  {self.from_record:,} from the record"
        step = f"{percent}" if is_terminal else f"{percent // 10}"
        if step == self._shown:
            return
        self._shown = step
        if is_terminal:
            print(f"\r{'━' * (percent // 4):─<25}{line}", end="", flush=True)
        else:
            print(line, flush=True)


WATCH = Watch()


# -- The program ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the flow, or finish one that was interrupted, and say what was done."""
    options = parse(arguments)
    root, out = os.path.realpath(options.root), os.path.realpath(options.out)
    os.makedirs(out, exist_ok=True)
    warnings.simplefilter("ignore")  # what the parser thinks of the sources
    WATCH.trace, WATCH.kill_after = options.trace, options.kill_after
    if options.workers:
        WATCH.slots = threading.BoundedSemaphore(options.workers)
    with embedded_orch.open(options.db or os.path.join(out, "report.db")) as orch:
        run_id = newest_run(orch, root, out, options.all) if options.resume else None
        if options.resume and run_id is None:
            print("No run with these options has begun: starting one.")
        done_before = files_done(orch, run_id) if run_id else 0
        calls_before = orch.task_runs.count(state_type="COMPLETED")
        started = time.perf_counter()
        if run_id:
            summary = stdlib_report.resume(run_id)
        else:
            summary = stdlib_report(root, out, options.all)
        seconds = time.perf_counter() - started
        calls = orch.task_runs.count(state_type="COMPLETED") - calls_before
    totals = ", ".join(f"{count:,} {name}" for name, count in summary["totals"].items())
    print(f"\n{totals}")
    print(f"{done_before:,} files from the record, {WATCH.done_here:,} done now")
    print(f"{calls:,} task runs in {seconds:.1f} s: {calls / seconds:,.0f} a second")
    for path in summary["reports"]:
        print(path)


def newest_run(
    orch: embedded_orch.Orchestrator, root: str, out: str, everything: bool
) -> UUID | None:
    """The newest run of the flow with these parameters, whatever became of it."""
    parameters = {"root": root, "out": out, "everything": everything}
    runs = orch.flow_runs.find(flow_name="stdlib-report")
    return next((run.id for run in runs if run.parameters == parameters), None)


def files_done(orch: embedded_orch.Orchestrator, run_id: UUID) -> int:
    """How many files a run has the facts of."""
    return orch.task_runs.count(
        flow_run_id=run_id, task_key="stdlib_report.analyse", state_type="COMPLETED"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Report on the Python standard library's sources.")
    parser.add_argument("--root", default=STDLIB, metavar="DIR", help="other sources to read")
    parser.add_argument("--all", action="store_true", help="read the tests among them too")
    parser.add_argument("--out", default="stdlib-report", metavar="DIR", help="where to write")
    parser.add_argument("--db", metavar="PATH", help="the database (default: report.db in --out)")
    parser.add_argument("--workers", type=at_least_one, metavar="N", help="files read at a time")
    parser.add_argument("--resume", action="store_true", help="finish the run that was interrupted")
    parser.add_argument(
        "--kill-after", type=at_least_one, metavar="N", help="SIGKILL this process after N files"
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="append what happens to each file to this one"
    )
    options = parser.parse_args(arguments)
    if not os.path.isdir(options.root):
        parser.error(f"--root: {options.root} is no folder")
    return options


def at_least_one(text: str) -> int:
    """A count from the command line."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return count


if __name__ == "__main__":
    main()

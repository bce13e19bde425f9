"""An open orchestrator and ``fork()``: what the child may do, and that the parent never notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Every program is given the path of a database, and functions to fork with.
PRELUDE = """
import os, sys, threading
import embedded_orch
from embedded_orch import errors, flow, task

path = sys.argv[1]

@task
def double(number):
    return 2 * number

@flow
def doubled(number):
    return double(number)

def in_child(code):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            code()
        finally:
            sys.stdout.flush()
            os._exit(0)
    return status_of(child)

def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def attempt(code):
    try:
        print("done:", code())
    except errors.OrchestratorError as error:
        print(f"{type(error).__name__}: {error}")

def make_table(orch):
    orch.database.write(lambda tx: tx.script("create table row (id integer, padding text)"))

"""
# So small that pages of an open transaction are in the log already.
FILL = """
class a_transaction:
    def __init__(self, opened):
        self.opened = opened

    def __enter__(self):
        if hasattr(self.opened, "commit"):
            return self.opened.transaction.connection.execute
        return self.opened.__enter__().execute

    def __exit__(self, *error):
        if not hasattr(self.opened, "commit"):
            self.opened.__exit__(*error)
        elif error[0] is None:
            self.opened.commit()

def fill(execute, first, count):
    for number in range(first, first + count):
        values = {"id": number, "padding": "x" * 900}
        execute("insert into row values (:id, :padding)", values)
"""


def run(path: Path, program: str, *, url: str = "") -> list[str]:
    """The lines that a program printed, and its children."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + program, str(path)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EMBEDDED_ORCH_URL": url,
            "EMBEDDED_ORCH_HOME": str(path.parent / "home"),
            "EMBEDDED_ORCH_LOG_LEVEL": "CRITICAL",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def check_whole(path: Path, *, rows: int) -> None:
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    assert connection.execute("select count(*), count(distinct id) from row").get == (rows, rows)
    connection.close()


# -- the parent never notices ------------------------------------------------------------------


@pytest.mark.parametrize(
    "session",
    ["orch.session(begin_transaction=True)", "orch.database.begin()"],
    ids=["unwound by the child", "left by the child as it is"],
)
def test_a_child_that_ends_in_a_transaction_leaves_it_to_the_parent(
    tmp_path: Path, session: str
) -> None:
    """Both ways out would write into the index that the two share, and spoil the parent's commit.

    Seen to fail when the end of the block rolls back in the child too, and when the interpreter
    closes at its end what it inherited.
    """
    path = tmp_path / "test.db"

    printed = run(
        path,
        FILL
        + f"""
orch = embedded_orch.open(path, cache_size=5)
make_table(orch)
with a_transaction({session}) as execute:
    fill(execute, 0, 500)
    child = os.fork()
    if child == 0:
        sys.exit(7)
    print(status_of(child))
    fill(execute, 500, 100)
orch.close()
""",
    )

    assert printed == ["7"]
    check_whole(path, rows=600)


def test_a_child_leaves_the_block_of_its_parents_orchestrator_without_a_word(
    tmp_path: Path,
) -> None:
    """Seen to fail with ForkedProcess and status 1: the child wanted to close it."""
    printed = run(
        tmp_path / "test.db",
        """
with embedded_orch.open(path) as orch:
    doubled(1)
    child = os.fork()
    if child == 0:
        sys.exit(7)
    print(status_of(child))
    doubled(2)
    print([run.state.name for run in orch.flow_runs.find()])
""",
    )

    assert printed == ["7", "['Completed', 'Completed']"]


def test_children_forked_while_threads_write_disturb_nobody(tmp_path: Path) -> None:
    path = tmp_path / "test.db"

    printed = run(
        path,
        """
orch = embedded_orch.open(path, checkpoint_pages=20, cache_size=5)
make_table(orch)
is_over = threading.Event()
written = [0, 0]

def write(which):
    while not is_over.is_set():
        number = 2 * written[which] + which
        orch.database.write(lambda tx: tx.connection.execute(
            "insert into row values (?, ?)", (number, "x" * 900)
        ))
        written[which] += 1

threads = [threading.Thread(target=write, args=(which,)) for which in (0, 1)]
for thread in threads:
    thread.start()
for _ in range(25):
    child = os.fork()
    if child == 0:
        sys.exit(7)
    assert status_of(child) == 7
is_over.set()
for thread in threads:
    thread.join()
orch.close()
print(sum(written))
""",
    )

    check_whole(path, rows=int(printed[0]))
    assert int(printed[0]) > 25


def test_a_task_may_fork_a_child_that_does_something_else(tmp_path: Path) -> None:
    printed = run(
        tmp_path / "test.db",
        """
import multiprocessing

@task
def sum_of(numbers):
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        return sum(pool.map(abs, numbers))

@flow
def summed():
    return sum_of([-1, -2, -3])

with embedded_orch.open(path) as orch:
    print(summed())
    print([run.state.name for run in orch.task_runs.find()])
""",
    )

    assert printed == ["6", "['Completed']"]


# -- the child is told -------------------------------------------------------------------------

CALLS = """
def call_all(orch):
    attempt(lambda: doubled(1))
    attempt(lambda: orch.database.read(lambda tx: 1))
    attempt(lambda: orch.database.write(lambda tx: 1))
    attempt(lambda: orch.database.announce(lambda tx: 1))
    attempt(lambda: orch.sql("select 1"))
    attempt(lambda: orch.flow_runs.count())
    attempt(lambda: orch.session(begin_transaction=True).__enter__())
    attempt(lambda: orch.session(begin_transaction=True, read_only=True).__enter__())
    attempt(lambda: orch.backup(path + "-copy"))

"""


@pytest.mark.parametrize(
    "opening",
    [
        "with embedded_orch.open(path) as orch:",
        "if orch := embedded_orch.open(path):",
        "with embedded_orch.open(path) as orch, orch.session(begin_transaction=True) as session:",
    ],
    ids=["entered", "open", "in a session"],
)
def test_every_call_of_a_child_is_refused(tmp_path: Path, opening: str) -> None:
    """Seen to fail: calls joined the parent's session, and flows ran on the default database."""
    printed = run(
        tmp_path / "test.db",
        CALLS
        + f"""
{opening}
    in_child(lambda: call_all(orch))
    print("parent")
    attempt(lambda: doubled(1))
""",
    )

    *refusals, parent, answer = printed
    assert len(refusals) == 9
    for refusal in refusals:
        assert refusal.startswith("ForkedProcess: ")
        assert "spawn or forkserver" in refusal
    assert (parent, answer) == ("parent", "done: 2")
    assert not (tmp_path / "home").exists()


def test_a_flow_of_a_child_does_not_run_on_the_parents_default_database(tmp_path: Path) -> None:
    printed = run(
        tmp_path / "test.db",
        """
doubled(1)
in_child(lambda: attempt(lambda: doubled(1)))
doubled(2)
print(embedded_orch.open(path).flow_runs.count())
""",
        url=str(tmp_path / "test.db"),
    )

    assert printed[0].startswith("ForkedProcess: ")
    assert "spawn or forkserver" in printed[0]
    assert printed[1:] == ["2"]


def test_a_child_may_open_another_file_and_not_the_parents(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "test.db")

    printed = run(
        tmp_path / "test.db",
        """
folder = os.path.dirname(path)

def open_others():
    attempt(lambda: embedded_orch.open(path))
    attempt(lambda: embedded_orch.open(os.path.join(folder, "link.db")))
    with embedded_orch.open(os.path.join(folder, "other.db")) as other:
        print(doubled(4), other.flow_runs.count())
    with embedded_orch.open(":memory:"):
        print(doubled(5))
    in_child(lambda: attempt(lambda: embedded_orch.open(path)))

orch = embedded_orch.open(path)
in_child(open_others)
orch.close()
in_child(lambda: attempt(lambda: embedded_orch.open(path).flow_runs.count()))
""",
    )

    assert [line.partition(":")[0] for line in printed[:2]] == ["ForkedProcess"] * 2
    assert printed[2:4] == ["8 1", "10"]
    # A grandchild inherits it as well; a child of a parent that had closed it does not.
    assert printed[4].startswith("ForkedProcess: ")
    assert printed[5] == "done: 0"


# -- what to do instead ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_by_spawn_and_forkserver_work(tmp_path: Path, method: str) -> None:
    (tmp_path / "member.py").write_text(
        "import embedded_orch\n"
        "from embedded_orch import flow\n"
        "@flow\n"
        "def tripled(number):\n"
        "    return 3 * number\n"
        "def work(path, number):\n"
        "    with embedded_orch.open(path):\n"
        "        return tripled(number)\n"
    )

    printed = run(
        tmp_path / "test.db",
        f"""
import multiprocessing
sys.path.insert(0, {str(tmp_path)!r})
import member

with embedded_orch.open(path) as orch:
    doubled(1)
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print(pool.starmap(member.work, [(path, number) for number in range(4)]))
        pool.close()
        pool.join()
    print(orch.flow_runs.count(state_type="COMPLETED"))
""",
    )

    assert printed == ["[0, 3, 6, 9]", "5"]

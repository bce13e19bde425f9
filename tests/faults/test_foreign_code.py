"""What a user's code may do beside us in one process: it is refused, with a way out, or harmless.

Tasks that fork, start processes, use other SQLite libraries and copy files, from several threads at
once, in one process. At the end every call is on record, once, and the file is as it has to be.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedded_orch
from tests.faults.invariants import problems, unburied
from tests.faults.run_records import asking_bare
from tests.programs import run_program

PROGRAM = """
import json, multiprocessing, os, shutil, sqlite3, subprocess, sys, threading, warnings

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.errors import DatabaseError

path, rounds = sys.argv[1], int(sys.argv[2])
folder = os.path.dirname(path)
warnings.simplefilter("ignore", DeprecationWarning)


def refused(do):
    try:
        do()
    except DatabaseError as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


@task
def fork(number):
    pid = os.fork()
    if not pid:
        answer = refused(lambda: step(number))
        os._exit(0 if answer.startswith("ForkedProcess") else 1)
    return os.waitpid(pid, 0)[1]


@task
def fork_by_multiprocessing(number):
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()
    return process.exitcode


@task
def start_a_program(number):
    return subprocess.run([sys.executable, "-c", "pass"]).returncode


@task
def connect(number):
    return refused(lambda: sqlite3.connect(path))


@task
def connect_elsewhere(number):
    connection = sqlite3.connect(f"{folder}/{number}.db")
    connection.execute("create table t (x)")
    connection.close()
    return 0


@task
def copy(number):
    return refused(lambda: shutil.copyfile(path, f"{path}-{number}"))


@task
def step(number):
    return number


KINDS = [fork, fork_by_multiprocessing, start_a_program, connect, connect_elsewhere, copy, step]


@flow
def mixed(number):
    return [kind(number) for kind in KINDS]


answers = []
with embedded_orch.open(path):
    def work(thread):
        for turn in range(rounds):
            answers.append(mixed(thread * rounds + turn))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps(answers))
"""
ROUNDS = 3
KINDS = 7


@pytest.mark.slow
def test_code_beside_us_is_refused_with_a_way_out_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"

    ended = run_program(PROGRAM, path, ROUNDS)

    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout)
    assert sorted(answer[-1] for answer in answers) == list(range(4 * ROUNDS))
    for forked, by_multiprocessing, program, connected, elsewhere, copied, _ in answers:
        assert [forked, by_multiprocessing, program, elsewhere] == [0, 0, 0, 0]
        assert connected.startswith("ForeignAccess")
        assert "orch.sql(" in connected
        assert copied.startswith("ForeignAccess")
        assert "orch.backup(" in copied
    with asking_bare(str(path)) as asked:
        assert problems(asked) == unburied(asked) == []
        [(integrity,)] = asked("pragma integrity_check")
    with embedded_orch.open(path) as orch:
        counts = (
            orch.flow_runs.count(state_type="COMPLETED"),
            orch.task_runs.count(state_type="COMPLETED"),
        )
    assert integrity == "ok"
    assert counts == (4 * ROUNDS, 4 * ROUNDS * KINDS)


@pytest.mark.soak
def test_pandas_is_refused_and_the_way_out_works(tmp_path: Path) -> None:
    """``make soak`` installs it. It opens the file with the SQLite of Python."""
    pandas = pytest.importorskip("pandas")
    sqlite3 = pytest.importorskip("sqlite3")
    with embedded_orch.open(tmp_path / "orch.db") as orch:
        with pytest.raises(embedded_orch.errors.ForeignAccess, match=r"orch\.sql"):
            pandas.read_sql("select 1", sqlite3.connect(tmp_path / "orch.db"))
        rows = orch.sql("select 1 as one")
        assert list(pandas.DataFrame(rows.dicts())["one"]) == [1]

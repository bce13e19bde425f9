"""Defences that are taken out of a copy of the source, one at a time, and the tests that notice.

    python -m tests.mutants.mutants [NAME ...]

Each mutant names a place in the source by its text, what stands there instead, and tests that have
to fail for it. A mutant whose tests all pass has survived: either the defence is not needed, or
nothing guards it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
_COPIED = ("embedded_orch", "schema", "tests", "benchmarks", "examples", "docs")
_FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_WRITER = "tests/db/test_file_writer.py"
_TESTS_FAILED = 1
_MINUTES = 10


class Mutant(NamedTuple):
    """One defence, and how it is taken away.

    Attributes:
        defence: what is gone, in words.
        file: where.
        before: the text of the place, which is there once.
        after: what stands there in the mutant.
        tests: what to run, as pytest takes it: files, or tests in them.
    """

    defence: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS: dict[str, Mutant] = {
    "epoch": Mutant(
        "the write of an owner whose run was taken over is refused",
        "embedded_orch/store/transitions.py",
        "    if found is not None and found != epoch:\n",
        "    if found is None:\n",
        ("tests/store/test_flow_runs.py", "tests/store/test_task_runs.py"),
    ),
    "lease": Mutant(
        "a claim lives for as long as its lease, and no longer",
        "schema/statements/slot_claim.sql",
        "where limit_id = :limit_id and expires < :now;",
        "where limit_id = :limit_id and expires > :now;",
        ("tests/engine/test_leases.py",),
    ),
    "flock": Mutant(
        "the lock file excludes the writes of other processes",
        "embedded_orch/db/sqlite/guard.py",
        "        try:\n            self._lock_file()\n",
        "        try:\n            os.fstat(self._lock_descriptor)\n",
        ("tests/db/test_guard.py",),
    ),
    "immediate": Mutant(
        "a write transaction is the only one from its beginning",
        "embedded_orch/db/sqlite/writer.py",
        '                self._execute("begin immediate")\n                if',
        '                self._execute("begin deferred")\n                if',
        (f"{_WRITER}::test_a_write_excludes_other_programs_before_its_first_statement",),
    ),
    "immediate session": Mutant(
        "the same for the transactions of sessions",
        "embedded_orch/db/sqlite/writer.py",
        '            self._execute("begin immediate")\n        except',
        '            self._execute("begin deferred")\n        except',
        (f"{_WRITER}::test_a_session_excludes_other_programs_before_its_first_statement",),
    ),
    "no room": Mutant(
        "a commit for which the disk has no room is looked for in the log",
        "embedded_orch/db/sqlite/writer.py",
        "isinstance(error, apsw.FullError) and not self._may_come_back()",
        "isinstance(error, apsw.FullError)",
        ("tests/faults/test_nth_fault_of_runs.py",),
    ),
    "another log": Mutant(
        "zeros go into no log but the one that is open",
        "embedded_orch/db/sqlite/log_room.py",
        " and self._presence.has(self._log, log.fileno())",
        "",
        ("tests/db/test_log_room.py",),
    ),
    "id look-up": Mutant(
        "a state that is proposed a second time, as after a commit in doubt, is stored once",
        "embedded_orch/orchestration/transition.py",
        "    if run.state_id == proposal.id:\n",
        "    if run.state_id is proposal:\n",
        ("tests/orchestration/test_flow_rules.py",),
    ),
    "epoch of an end": Mutant(
        "the owner of a run that was taken over does not end it",
        "schema/statements/flow_run.sql",
        "where id = :id and state_id = :last_state_id and epoch = :epoch;\n",
        "where id = :id and state_id = :last_state_id and :epoch = 0;\n",
        ("tests/store/test_flow_runs.py::TestProposingToARunAsItsOwnerHasLeftIt",),
    ),
    "state before an end": Mutant(
        "a run that somebody has moved ends as the rules say",
        "schema/statements/flow_run.sql",
        "where id = :id and state_id = :last_state_id and epoch = :epoch;\n",
        "where id = :id and :last_state_id <> :id and epoch = :epoch;\n",
        ("tests/store/test_flow_runs.py::TestProposingToARunAsItsOwnerHasLeftIt",),
    ),
    "take-over look-up": Mutant(
        "a take-over that is run a second time is the first one",
        "embedded_orch/store/flow_runs.py",
        "    if row[0] == running.id:\n",
        "    if row[0] is running:\n",
        ("tests/store/test_flow_runs.py",),
    ),
    "lease of a process": Mutant(
        "a process that is heard of again is not buried",
        "embedded_orch/store/recovering.py",
        " or (is_by_lease and not row[1])",
        "",
        ("tests/store/test_recovering.py",),
    ),
    "epoch of what is left": Mutant(
        "a run that is left to be resumed is of another epoch",
        "embedded_orch/store/recovering.py",
        '        tx.run("flow_run.next_epoch", id=run_id, epoch=epoch, now=now)\n'
        "    return _to_resume",
        "        pass\n    return _to_resume",
        ("tests/store/test_processes.py",),
    ),
    "result with state": Mutant(
        "a result is committed before its caller gets it",
        "embedded_orch/engine/task_record.py",
        "            decision = super().perform()\n",
        "            self._database.announce(self._operation)\n"
        "            from embedded_orch.orchestration import values\n\n"
        "            run: values.Run = self._record  # type: ignore[assignment]\n"
        "            decision = values.Decision(values.Verdict.ACCEPT, run)\n",
        ("tests/test_announcing.py",),
    ),
    "result in state": Mutant(
        "a result is stored in the transaction of its Completed state",
        "embedded_orch/store/transitions.py",
        '        "data": state.data,\n        "data_format": state.data_format,\n',
        '        "data": None,\n        "data_format": None,\n',
        ("tests/test_results.py",),
    ),
    "fsync": Mutant(
        'under durability "full" a commit is on the disk',
        "embedded_orch/db/sqlite/options.py",
        "        return self.durability.upper()\n",
        '        return "OFF" if self.durability == "off" else "NORMAL"\n',
        ("tests/faults/test_power_cuts_of_runs.py",),
    ),
    "resume key": Mutant(
        "a record is that of a call by its inputs",
        "embedded_orch/engine/identity.py",
        "hasher()(inputs, digest_size=_DIGEST_BYTES)",
        "hasher()(digest_size=_DIGEST_BYTES)",
        ("tests/engine/test_identity.py",),
    ),
    "resume key of the caller": Mutant(
        "a record is that of a call by the task run that made it",
        "embedded_orch/engine/identity.py",
        "        digest.update(parent.bytes)\n",
        "        digest.update(task_key.encode())\n",
        ("tests/engine/test_identity.py",),
    ),
    "due once": Mutant(
        "what was due once is due when the clock is set back",
        "embedded_orch/orchestration/rules.py",
        "    if due <= max(now, run.state_timestamp or 0):\n",
        "    if due <= now:\n",
        ("tests/orchestration/test_flow_rules.py",),
    ),
    "unrecorded end": Mutant(
        "the end of a run that could not be taken is not written into that of who took it",
        "embedded_orch/engine/unrecorded.py",
        "        if found and found[0].owner_id != self._owner.id:\n",
        "        if not found:\n",
        ("tests/engine/test_loose_ends.py",),
    ),
    "resumes in a row": Mutant(
        "a run that kills its process each time is given up",
        "embedded_orch/store/resumes.py",
        "    return before if is_waiting else before + 1, completed\n",
        "    return before if is_waiting else 1, completed\n",
        ("tests/test_resuming_again.py",),
    ),
    "judged once": Mutant(
        "a signal that came too late for a wait does not answer it later",
        "embedded_orch/store/waits.py",
        "    if found is None and _is_late(wait, now):\n        tx.run(",
        "    if found is None and _is_late(wait, now):\n        dict(",
        ("tests/test_waiting.py::test_a_signal_that_does_not_come_in_time_is_missing_for_good",),
    ),
    "judged by the sender": Mutant(
        "a signal that is sent after the deadline does not answer the wait that nobody looked at",
        "embedded_orch/store/waits.py",
        "        if _is_late(wait, now):\n",
        "        if wait.is_over:\n",
        ("tests/test_waiting.py::test_whoever_sends_a_signal_too_late_judges_it_so",),
    ),
    "paused child": Mutant(
        "resuming a caller is no answer to the pause of its child",
        "embedded_orch/engine/resuming.py",
        "owner_died=is_left_paused or (",
        "owner_died=(",
        ("tests/test_resumed_children.py::test_a_paused_child_comes_to_its_pause_again",),
    ),
    "child elsewhere": Mutant(
        "a child that another process runs is not run by its caller too",
        "embedded_orch/engine/subflow.py",
        "if has_ended or not runs_in_living_process(engine, child, owner):",
        "if has_ended or child is not None:",
        (
            "tests/test_resumed_children.py::test_a_child_that_runs_in_another_process_is_waited_for",
        ),
    ),
    "strict order": Mutant(
        "a strict run runs nothing while a completed call before it was not made",
        "embedded_orch/engine/records.py",
        "        missed = self._first_missed(parent)\n",
        "        missed = self._first_missed(parent) if parent else None\n",
        ("tests/engine/test_records.py", "tests/test_changed_runs.py"),
    ),
    "loose ends": Mutant(
        "a task whose end could not be written does not stay Running",
        "embedded_orch/engine/flow_record.py",
        "        if not self.has_loose_ends:\n",
        "        if move is not None:\n",
        ("tests/engine/test_loose_ends.py",),
    ),
    "cancelled once": Mutant(
        "a run that has ended as Cancelled is not cancelled by the process that comes back",
        "embedded_orch/store/transitions.py",
        "_TYPES[row[1]] in TERMINAL_TYPES and not is_repeat:",
        "_TYPES[row[1]] is None and not is_repeat:",
        ("tests/store/test_flow_runs.py",),
    ),
    "fenced by a cancellation": Mutant(
        "a process whose run was cancelled as nobody's changes nothing of it when it comes back",
        "embedded_orch/store/flow_runs.py",
        '    if owner_id is not None:\n        tx.run("flow_run.fence_off"',
        '    if owner_id is None:\n        tx.run("flow_run.fence_off"',
        ("tests/store/test_flow_runs.py::TestCancellingWhatNobodyRuns",),
    ),
    "start of a caller": Mutant(
        "what a task calls sees to the start of the task",
        "embedded_orch/engine/task_record.py",
        "        if start is not None and self._is_start_in_doubt():\n",
        "        if start is None:\n",
        (
            "tests/test_announcing.py::test_start_that_could_not_be_written_is_written_with_what_the_task_calls",
        ),
    ),
    "late lines": Mutant(
        "lines are asked whether their run is still there, on a server those that come late",
        "embedded_orch/store/logs.py",
        'tx.dialect == "sqlite" or any(abs(now - row.timestamp) > _LATE for row in rows)',
        "any(now < 0 for row in rows)",
        ("tests/test_logs.py::test_late_lines_of_a_run_that_was_removed_are_not_stored",),
    ),
    "lines that failed": Mutant(
        "lines whose commit fails go with the state that waits behind them",
        "embedded_orch/engine/log_queue.py",
        "                if _may_succeed(announced.error) if announced.is_done else has_failed:\n",
        "                if announced is None:\n",
        (
            "tests/test_logs.py::test_lines_whose_commit_fails_go_with_the_state_that_waits_behind_them",
        ),
    ),
    "lines before the end": Mutant(
        "the end of a task does not go with its start while its lines wait",
        "embedded_orch/engine/task_record.py",
        "None if engine.logs.has_leaving else proposal",
        "proposal",
        (
            "tests/test_logs.py::test_lines_of_a_task_are_not_overtaken_by_an_end_that_goes_with_its_start",
        ),
    ),
    "removal look-up": Mutant(
        "a removal whose commit is in doubt is not run a second time",
        "embedded_orch/engine/removing.py",
        "            if not store.is_last_step(tx, step_id, of=self._id):\n",
        "            if step_id:\n",
        (
            "tests/faults/test_unknown_outcomes.py::test_removal_that_is_run_again_counts_and_removes_all",
        ),
    ),
    "others' result file": Mutant(
        "a result file that was there already is synced before it is named",
        "embedded_orch/db/result_folder.py",
        "        if not self._is_synced:\n            return True\n",
        "        if target:\n            return True\n",
        ("tests/faults/test_power_cuts_of_files.py",),
    ),
}


class Survived(Exception):
    """All tests passed without the defence."""


def catch(mutant: Mutant) -> str:
    """Have the tests of a mutant run on it; the first that failed.

    Raises:
        Survived: none did.
        RuntimeError: they could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        copy_source(copy)
        place = copy / mutant.file
        place.write_text(mutated(mutant), encoding="utf-8")
        finished = run_tests(copy, mutant.tests)
    if finished.returncode == 0:
        raise Survived(f"{mutant.defence}: not any more, and no test of {mutant.tests} says so")
    if finished.returncode != _TESTS_FAILED:
        raise RuntimeError(finished.stdout + finished.stderr)
    failed = [line for line in finished.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("FAILED ").partition(" - ")[0]


def mutated(mutant: Mutant) -> str:
    """The source of the file without the defence.

    Raises:
        ValueError: the place is not there, or not once.
    """
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.before) != 1:
        raise ValueError(
            f"{mutant.file} holds {mutant.before!r} {source.count(mutant.before)} times: the "
            f"source has moved on, and the mutant has to follow"
        )
    return source.replace(mutant.before, mutant.after)


def copy_source(folder: Path) -> None:
    """A copy of the source and its tests."""
    for name in _COPIED:
        without_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=without_caches)
    for name in _FILES:
        shutil.copyfile(ROOT / name, folder / name)


def run_tests(folder: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy on the package of that copy, to the first that fails."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
    )


def main(names: list[str]) -> int:
    """Catch the mutants of these names, or all; how many survived."""
    survived = 0
    for name in names or MUTANTS:
        try:
            print(f"{name}: caught by {catch(MUTANTS[name])}", flush=True)
        except Survived as error:
            survived += 1
            print(f"{name}: SURVIVED: {error}", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

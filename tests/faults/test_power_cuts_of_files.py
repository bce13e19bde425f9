"""Before each commit, the files of results that it names are where a power cut leaves them.

What reaches the disk is followed by the calls of the operating system: what a file holds with its
own sync, its name with that of its folder, and so each folder above it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from embedded_orch import flow, task
from embedded_orch.db.result_folder import ResultFolder, folder_beside
from embedded_orch.db.sqlite.writer import Writer
from embedded_orch.store import result_files
from tests.opened import opened

LARGE = "x" * 300_000


class Disk:
    """What a power cut would take of the files that were made since it is watched.

    Attributes:
        lost_at_commits: the files that commits name and would have outlived.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
        self._results = results
        self._unsynced: set[int] = set()
        self._unnamed: dict[str, set[str]] = {}
        self.lost_at_commits: list[str] = []
        for name in ("write", "fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        commit = Writer._commit

        def watched_commit(writer: Writer) -> None:
            named = result_files.named(writer.transaction)
            self.lost_at_commits += [path.name for path in self._lost() if path.name in named]
            commit(writer)

        monkeypatch.setattr(Writer, "_commit", watched_commit)

    def _lost(self) -> list[Path]:
        """The files of results that are not on the disk, or not under their names."""
        return [path for path in self._results.glob("??/*") if self._is_lost(path)]

    def _is_lost(self, path: Path) -> bool:
        names = [path, *path.parents]
        return path.stat().st_ino in self._unsynced or any(
            each.name in self._unnamed.get(str(each.parent), ()) for each in names
        )

    def _watched(self, name: str, real: Any) -> Any:
        def call(first: Any, *args: Any) -> Any:
            answer = real(first, *args)
            if name == "write":
                self._unsynced.add(os.fstat(first).st_ino)
            elif name == "fsync":
                self._unsynced.discard(os.fstat(first).st_ino)
                self._unnamed.pop(os.readlink(f"/proc/self/fd/{first}"), None)
            else:
                folder, new = os.path.split(str(first if name == "mkdir" else args[0]))
                self._unnamed.setdefault(folder, set()).add(new)
            return answer

        return call


@task
def large() -> str:
    return LARGE


@flow
def report() -> str:
    return large()


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("found", ["nothing", "a folder", "the file"])
def test_no_commit_outlives_a_file_that_it_names(
    durability: Any, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail where another process had made the file or its folder, and not synced it."""
    path = tmp_path / "orch.db"
    results = Path(folder_beside(str(path)))
    disk = Disk(monkeypatch, results)
    if found != "nothing":
        others = ResultFolder(str(results), is_synced=False)
        name = others.put(f'"{LARGE}"'.encode())
        if found == "a folder":
            others.remove(name)

    with opened(str(path), durability=durability):
        report()

    assert len(list(results.glob("??/*"))) == 1
    assert disk.lost_at_commits == []


def test_without_syncs_commits_outlive_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would be blind."""
    path = tmp_path / "orch.db"
    disk = Disk(monkeypatch, Path(folder_beside(str(path))))

    with opened(str(path), durability="off"):
        report()

    assert len(set(disk.lost_at_commits)) == 1

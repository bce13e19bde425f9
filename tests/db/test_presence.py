"""A file that is removed or replaced while it is open: told of, saved, and opened anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.db.sqlite import presence
from tests.engine.waiting import until
from tests.opened import opened

done: list[int] = []


@task
def step(number: int) -> int:
    done.append(number)
    return number


@flow
def steps(count: int) -> list[int]:
    return [step(number) for number in range(count)]


def remove_file(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_file(path: Path) -> None:
    other = path.with_name("other.db")
    embedded_orch.open(other).close()
    os.replace(other, path)


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def remove_index(path: Path) -> None:
    Path(f"{path}-shm").unlink()


WAYS = [remove_file, remove_folder, replace_file, remove_log, remove_index]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "orch.db"


@pytest.fixture(autouse=True)
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.0)
    done.clear()


class TestLost:
    @pytest.mark.parametrize("lose", WAYS)
    @pytest.mark.parametrize(
        "use",
        [
            lambda orch: steps(1),
            lambda orch: orch.flow_runs.count(),
            lambda orch: orch.sql("select 1").scalar(),
            lambda orch: orch.session(begin_transaction=True).__enter__(),
            lambda orch: orch.session(begin_transaction=True, read_only=True).__enter__(),
        ],
        ids=["flow", "read", "query", "session", "read-only session"],
    )
    def test_every_use_says_so_and_what_to_do(
        self, path: Path, lose: Callable[[Path], None], use: Callable[[Orchestrator], object]
    ) -> None:
        """Seen to fail without the look: flows went on to write into a file without a name."""
        with opened(str(path)) as orch:
            steps(2)
            lose(path)

            with pytest.raises(errors.DatabaseLost, match=r"(removed|replaced) .* orch\.backup"):
                use(orch)

    @pytest.mark.parametrize("lose", [remove_file, remove_folder, replace_file])
    def test_what_it_held_can_be_saved_and_goes_on_from_there(
        self, path: Path, tmp_path: Path, lose: Callable[[Path], None]
    ) -> None:
        @flow
        def loses_its_file(count: int) -> int:
            total = 0
            for number in range(count):
                total += step(number)
                if number == 2 and len(done) == 3:
                    lose(path)
            return total

        with opened(str(path)) as orch:
            with pytest.raises(errors.DatabaseLost):
                loses_its_file(5)
            orch.backup(tmp_path / "saved.db")

        assert done == [0, 1, 2, 3]
        with opened(str(tmp_path / "saved.db")) as orch:
            run = next(orch.flow_runs.find())
            assert run.state is not None
            assert run.state.is_crashed()
            assert orch.check() == []
            assert loses_its_file.resume(run.id) == 10
        # The one that could not be recorded, and the last.
        assert done == [0, 1, 2, 3, 3, 4]

    @pytest.mark.parametrize("lose", [remove_file, remove_folder, replace_file])
    def test_it_can_be_closed_and_opened_anew(
        self, path: Path, lose: Callable[[Path], None]
    ) -> None:
        with opened(str(path)) as orch:
            steps(2)
            lose(path)
            with pytest.raises(errors.DatabaseLost):
                steps(2)

        with opened(str(path)) as orch:
            assert orch.flow_runs.count() == 0
            assert steps(2) == [0, 1]
            assert orch.check() == []

    def test_another_is_not_opened_in_its_place_before_it_is_closed(self, path: Path) -> None:
        with opened(str(path)):
            remove_file(path)

            with pytest.raises(errors.DatabaseLost):
                embedded_orch.open(path)
            assert not path.exists()

    def test_one_that_is_put_back_is_as_before(self, path: Path) -> None:
        away = path.with_name("away.db")
        with opened(str(path)) as orch:
            steps(1)
            path.rename(away)
            with pytest.raises(errors.DatabaseLost):
                steps(1)
            away.rename(path)

            assert steps(1) == [0]
            assert orch.flow_runs.count() == 2

    def test_without_a_log_a_file_that_is_gone_is_told_of_too(self, path: Path) -> None:
        with opened(str(path), journal="truncate"):
            steps(1)
            remove_file(path)

            with pytest.raises(errors.DatabaseLost):
                steps(1)

    def test_it_is_noticed_with_the_real_pause_too(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        with opened(str(path)) as orch:
            steps(1)
            remove_file(path)

            def is_noticed() -> bool:
                try:
                    orch.flow_runs.count()
                except errors.DatabaseLost:
                    return True
                return False

            until(is_noticed, "the loss is noticed")

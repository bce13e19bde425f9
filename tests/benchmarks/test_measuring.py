"""The arithmetic of the benchmarks: what is timed, in which order, and what is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import embedded_orch
from benchmarks import memory, run
from benchmarks.filling import Size, fill_file
from benchmarks.measuring import (
    YARDSTICK_SECONDS,
    Figure,
    Outcome,
    Row,
    Side,
    Stopwatch,
    Work,
    measure,
    percentile,
    processor_seconds,
)
from benchmarks.peers import Comparison, Peer, Result
from benchmarks.peers import table as peers_table
from benchmarks.plotting import ratios
from benchmarks.reporting import commit, duration, record, table
from embedded_orch import flow


def a_clock(*readings: float) -> Callable[[], float]:
    """A clock that shows these times, one after the other."""
    return iter(readings).__next__


def a_side(calls: list[str], name: str) -> Side:
    """A side that notes when it is opened, run and closed."""

    @contextmanager
    def side(folder: Path) -> Iterator[Work]:
        assert list(folder.iterdir()) == []
        calls.append(f"open {name}")

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                calls.append(name)

        yield work
        calls.append(f"close {name}")

    return side


def an_outcome(
    ours: tuple[float, ...] = (2e-3,), floor: tuple[float, ...] | None = (1e-3,)
) -> Outcome:
    row = Row("one task", 1, a_side([], "ours"), target="at most 3 x")
    return Outcome(row, Figure(ours), None if floor is None else Figure(floor))


class TestStopwatch:
    def test_it_counts_what_is_inside_its_blocks_and_nothing_between(self) -> None:
        stopwatch = Stopwatch(a_clock(1.0, 1.5, 10.0, 10.25))

        with stopwatch:
            pass
        with stopwatch:
            pass

        assert stopwatch.seconds == 0.75

    def test_it_counts_a_block_that_raises(self) -> None:
        stopwatch = Stopwatch(a_clock(1.0, 3.0))

        with pytest.raises(KeyError), stopwatch:
            raise KeyError

        assert stopwatch.seconds == 2.0


def test_a_percentile_is_the_sample_that_so_many_are_not_above() -> None:
    samples = [float(number) for number in range(200, 0, -1)]

    assert percentile(samples, 99) == 198.0
    assert percentile(samples, 100) == 200.0
    assert percentile([5.0], 1) == 5.0


class TestMeasure:
    def test_sides_take_turns_and_the_first_round_does_not_count(self) -> None:
        calls: list[str] = []

        outcome = measure(Row("r", 1, a_side(calls, "ours"), a_side(calls, "floor")), rounds=2)

        assert calls == [
            *("open ours", "open floor"),
            *("ours", "floor"),
            *("floor", "ours"),
            *("ours", "floor"),
            *("close floor", "close ours"),
        ]
        assert outcome.floor is not None
        assert len(outcome.ours.samples) == len(outcome.floor.samples) == 2

    def test_a_row_without_a_floor_has_no_ratio(self) -> None:
        outcome = measure(Row("r", 1, a_side([], "ours")), rounds=1)

        assert outcome.floor is None
        assert outcome.ratio is None
        assert outcome.at_pace is None

    def test_a_yardstick_has_its_turn_in_each_round_and_says_how_fast_the_machine_is(self) -> None:
        calls: list[str] = []
        yardstick = Row("y", 5, a_side(calls, "yardstick"))

        outcome = measure(Row("r", 1, a_side(calls, "ours")), rounds=1, yardstick=yardstick)

        assert calls[2:-2] == ["ours", "yardstick", "yardstick", "ours"]
        assert outcome.yardstick is not None
        slower = outcome.yardstick.median / YARDSTICK_SECONDS
        assert outcome.at_pace == pytest.approx(outcome.ours.median / slower)

    def test_each_side_runs_its_flows_in_the_database_that_it_opened(self) -> None:
        """Seen to fail: both ran in the one that was opened last."""
        counts: list[int] = []

        @flow
        def empty() -> None:
            return

        @contextmanager
        def side(folder: Path) -> Iterator[Work]:
            with embedded_orch.open(folder / "orch.db") as orch:

                def work(stopwatch: Stopwatch) -> None:
                    with stopwatch:
                        empty()

                yield work
                counts.append(orch.flow_runs.count())

        measure(Row("empty", 1, side, side), rounds=2)

        assert counts == [3, 3]

    def test_a_round_that_times_nothing_is_an_error(self) -> None:
        @contextmanager
        def side(folder: Path) -> Iterator[Work]:
            yield lambda stopwatch: None

        with pytest.raises(RuntimeError, match="nothing under its stopwatch"):
            measure(Row("r", 1, side), rounds=1)

    def test_a_sample_is_for_one_operation(self) -> None:
        @contextmanager
        def side(folder: Path) -> Iterator[Work]:
            def work(stopwatch: Stopwatch) -> None:
                stopwatch.seconds = 5.0

            yield work

        outcome = measure(Row("r", 100, side), rounds=3)

        assert outcome.ours.samples == (0.05, 0.05, 0.05)


class TestFigures:
    def test_the_median_is_not_moved_by_one_disturbed_round(self) -> None:
        assert Figure((1.0, 1.1, 0.9, 1.0, 50.0)).median == 1.0

    def test_the_spread_is_the_width_of_the_middle_half(self) -> None:
        assert Figure((1.0, 2.0, 3.0, 4.0, 5.0)).spread == pytest.approx(2.0 / 3.0)

    def test_one_sample_has_no_spread(self) -> None:
        assert Figure((1.0,)).spread == 0.0

    def test_the_ratio_is_that_of_the_medians(self) -> None:
        assert an_outcome(ours=(3.0, 3.0, 9.0), floor=(2.0, 1.0, 2.0)).ratio == 1.5


class TestReport:
    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (4.0, "4.00 s"),
            (1.0, "1.00 s"),
            (0.25, "250 ms"),
            (1.25e-3, "1.25 ms"),
            (12.34e-6, "12.3 us"),
            (3e-7, "0.30 us"),
        ],
    )
    def test_a_duration_has_three_digits_and_a_unit(self, seconds: float, shown: str) -> None:
        assert duration(seconds) == shown

    def test_the_table_shows_ours_the_floor_and_the_ratio(self) -> None:
        shown = table([an_outcome(ours=(2e-3,), floor=(1e-3,))])

        assert shown == (
            "             ours  spread    floor  spread   ratio  at pace  target\n"
            "one task  2.00 ms      0%  1.00 ms      0%  2.00 x        -  at most 3 x"
        )

    def test_the_table_shows_ours_at_the_pace_at_which_the_targets_were_set(self) -> None:
        outcome = an_outcome()._replace(yardstick=Figure((2 * YARDSTICK_SECONDS,)))

        assert table([outcome]).endswith("2.00 x  1.00 ms  at most 3 x")

    def test_the_table_leaves_out_a_floor_that_is_not_there(self) -> None:
        shown = table([an_outcome(floor=None)])

        assert shown == (
            "             ours  spread  floor  spread  ratio  at pace  target\n"
            "one task  2.00 ms      0%      -       -      -        -  at most 3 x"
        )

    def test_the_record_can_be_read_back_and_names_machine_and_commit(self) -> None:
        read = json.loads(json.dumps(record([an_outcome(ours=(2.0, 4.0), floor=(1.0, 1.0))])))

        (row,) = read["rows"]
        assert row["ours"]["samples_seconds"] == [2.0, 4.0]
        assert row["ratio"] == 3.0
        assert {"processor", "cores", "python", "packages"} <= read["machine"].keys()
        assert "commit" in read

    def test_outside_a_repository_there_is_no_commit(self, tmp_path: Path) -> None:
        assert commit(tmp_path) is None


class TestCommand:
    @staticmethod
    def two_rows() -> list[Row]:
        return [Row(name, 1, a_side([], "ours")) for name in ("claim of 100", "one task")]

    def test_rows_are_chosen_by_parts_of_their_names(self) -> None:
        assert [row.name for row in run.choose(self.two_rows(), ["claim"])] == ["claim of 100"]

    def test_without_words_all_rows_are_chosen(self) -> None:
        rows = self.two_rows()

        assert run.choose(rows, []) == rows

    def test_a_word_in_no_name_is_an_error_that_lists_the_names(self) -> None:
        with pytest.raises(SystemExit, match=r"(?s)'import'.*claim of 100.*one task"):
            run.choose(self.two_rows(), ["import"])

    def test_the_command_prints_the_table_and_writes_the_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(run, "all_rows", self.two_rows)

        status = run.main(["--rounds", "1", "--rows", "task", "--json", str(tmp_path / "b.json")])

        assert status == 0
        assert "one task" in capsys.readouterr().out
        assert [row["name"] for row in json.loads((tmp_path / "b.json").read_text())["rows"]] == [
            "one task"
        ]

    def test_every_row_of_the_project_can_be_found(self) -> None:
        names = [row.name for row in run.all_rows()]

        assert len(names) == len(set(names))


class TestMemory:
    def test_it_is_shown_at_a_quarter_a_half_and_the_end(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(memory, "_BATCH", 10)

        found = memory.measure_memory(40)

        shown = capsys.readouterr().out.splitlines()
        assert [mark.tasks for mark in found] == [10, 20, 40]
        assert all(mark.rss > 0 and mark.blocks > 0 for mark in found)
        assert "for each more" not in shown[0]
        assert [line.endswith("blocks for each more") for line in shown[1:]] == [True, True]

    def test_where_it_has_grown_is_told_by_lines_of_code(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(memory, "_BATCH", 10)

        memory.measure_memory(40, traced=True)

        told = capsys.readouterr().out.splitlines()[3:]
        assert any("bytes a task" in line and "identity.py" in line for line in told)

    def test_a_number_that_has_no_quarter_is_refused(self) -> None:
        with pytest.raises(SystemExit, match="a multiple of 4000"):
            run.main(["--memory", "10"])


class TestProcessorTime:
    def test_it_counts_work_and_no_waiting(self) -> None:
        before = processor_seconds()
        sum(range(3_000_000))
        worked = processor_seconds()
        threading.Event().wait(0.3)

        assert worked > before
        assert processor_seconds() - worked < 0.2

    def test_it_counts_processes_that_have_ended(self) -> None:
        before = processor_seconds()
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)

        assert processor_seconds() - before > 0.02


class TestPlot:
    def test_a_bar_is_drawn_for_each_row_that_has_a_floor(self) -> None:
        drawn = ratios([an_outcome(ours=(3e-3,), floor=(1e-3,)), an_outcome(floor=None)])

        root = ET.fromstring(drawn)
        texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts[1:] == ["one task", "3.00"]


class TestFilling:
    def test_a_filled_file_has_nothing_to_mend_and_can_be_searched(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        embedded_orch.open(path).close()

        fill_file(str(path), Size(flow_runs=200, tasks=2))

        with embedded_orch.open(path, retention=False) as orch:
            assert orch.check() == []
            assert orch.flow_runs.count(state_type=["FAILED"]) == 6
            assert orch.task_runs.count() == 400
            (newest,) = orch.flow_runs.find(limit=1)
            assert [run.state_name for run in orch.task_runs.find(flow_run_id=[newest.id])] == [
                "Completed",
                "Completed",
            ]


class TestPeers:
    def test_the_table_says_who_is_ahead_and_what_each_guarantees(self) -> None:
        compared = Comparison(
            *(Peer("other", "other==1.0"), "steps", 10, "step"), ours="all", theirs="less"
        )
        sides = [{"seconds": 0.01, "processor": 0.01}], [{"seconds": 0.02, "processor": 0.02}]

        assert peers_table([Result(compared, "3.13.0", *sides)]).splitlines()[-1] == (
            "| other==1.0, file, Python 3.13.0 | step | 1,000/s | 500/s | 2.00 x | all | less |"
        )

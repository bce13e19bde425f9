"""Orders are booked once, whatever happens to the program."""

from __future__ import annotations

import signal
from pathlib import Path

import embedded_orch
from tests.programs import run_example


def orders(folder: Path, number: int, *, bad: bool = False) -> None:
    lines = [f"{number}-{each},Ann,{number}.5{'x' * bad}" for each in range(3)]
    text = "\n".join(["number,customer,amount", *lines])
    folder.joinpath(f"day-{number}.csv").write_text(text, encoding="utf-8")


def test_orders_are_booked_once_however_often_the_program_is_killed(tmp_path: Path) -> None:
    folder, db = tmp_path / "orders", tmp_path / "orders.db"
    folder.mkdir()
    for number in range(5):
        orders(folder, number, bad=number == 3)

    killed = run_example("load_orders.py", folder, "--db", db, KILL_AFTER="2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = run_example("load_orders.py", folder, "--db", db)

    assert finished.returncode == 0, finished.stderr
    assert "4 files, 12 orders, 27.00 in all" in finished.stdout
    assert "day-3.csv, line 2" in finished.stdout
    orders(folder, 3)
    again = run_example("load_orders.py", folder, "--db", db)
    assert "1 files, 15 orders, 37.50 in all" in again.stdout, again.stderr
    with embedded_orch.open(db) as orch:
        assert orch.sql("select count(distinct number) from booked_order").scalar() == 15

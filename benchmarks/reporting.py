"""What a run of the benchmarks says: a table for people, JSON for comparing with other runs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.measuring import Figure, Outcome

ROOT = Path(__file__).parent.parent
HEADINGS = ("", "ours", "spread", "floor", "spread", "ratio", "at pace", "target")


def duration(seconds: float) -> str:
    """Three digits and a unit: ``12.3 us``, ``1.25 ms``, ``4.00 s``."""
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
    unit, size = next((pair for pair in units if seconds >= pair[1]), units[-1])
    value = seconds / size
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def quantity(value: float, unit: str) -> str:
    """A figure with its unit."""
    return f"{value:,.0f} bytes" if unit == "bytes" else duration(value)


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each row, in columns."""
    lines = [HEADINGS, *map(_cells, outcomes)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            # Names and targets are read from the left, figures compared from the right.
            cell.ljust(width) if column in (0, len(HEADINGS) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(outcome: Outcome) -> tuple[str, ...]:
    floor = ("-", "-") if outcome.floor is None else _figure_cells(outcome.floor, outcome.row.unit)
    ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.2f} x"
    return (
        outcome.row.name,
        *_figure_cells(outcome.ours, outcome.row.unit),
        *floor,
        ratio,
        "-" if outcome.at_pace is None else duration(outcome.at_pace),
        outcome.row.target,
    )


def _figure_cells(figure: Figure, unit: str) -> tuple[str, str]:
    return quantity(figure.median, unit), f"{figure.spread:.0%}"


def record(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Everything that is needed to judge the figures later: samples, machine, commit."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": machine(),
        "rows": [
            {
                "name": outcome.row.name,
                "operations": outcome.row.operations,
                "target": outcome.row.target,
                "ratio": outcome.ratio,
                "at_pace_seconds": outcome.at_pace,
                "ours": _figure_record(outcome.ours, outcome.row.unit),
                "floor": None
                if outcome.floor is None
                else _figure_record(outcome.floor, outcome.row.unit),
                "yardstick": None
                if outcome.yardstick is None
                else _figure_record(outcome.yardstick, "seconds"),
            }
            for outcome in outcomes
        ],
    }


def _figure_record(figure: Figure, unit: str) -> dict[str, object]:
    return {
        f"median_{unit}": figure.median,
        "spread": figure.spread,
        f"samples_{unit}": list(figure.samples),
    }


def commit(folder: Path) -> str | None:
    """The commit that is checked out, with ``+`` when files differ from it; None outside git."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        # No git, no repository, or no commit in it yet: figures are of use all the same.
        return None
    return f"{head}+" if changes else head


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("apsw", "msgspec", "anyio", "psycopg")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        # Only Linux has the file; platform knows less, but everywhere.
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""A parameter sweep in a pool of processes: which smoothing fits a noisy signal best?

    python examples/sweep_parameters.py [--workers 2] [--points 20000] [--db sweep.db]

Each setting is one task, computed by numpy in a process of its own and recorded in this one.
Started again with the same database, settings that were computed are not computed again.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

import numpy as np

import embedded_orch
from embedded_orch import flow, task, unmapped
from embedded_orch.cache_policies import INPUTS
from embedded_orch.task_runners import ProcessPoolTaskRunner

WINDOWS = (1, 5, 11, 21, 41, 81, 161, 321)


@task(cache_policy=INPUTS, cache_expiration=timedelta(days=30))
def fit(window: int, points: int) -> float:
    """How far a signal that is smoothed over a window is from the true one, on average."""
    chance = np.random.default_rng(1)
    time = np.linspace(0, 6 * np.pi, points)
    truth = np.sin(time)
    noisy = truth + chance.normal(scale=0.5, size=points)
    smooth = np.convolve(noisy, np.ones(window) / window, mode="same")
    return float(np.sqrt(np.mean((smooth - truth) ** 2)))


@flow
def sweep(points: int) -> dict[int, float]:
    """The error of each window."""
    found = fit.map(list(WINDOWS), points=unmapped(points)).result()
    return dict(zip(WINDOWS, found, strict=True))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Which smoothing fits a noisy signal best?")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--db", default=":memory:")
    arguments = parser.parse_args()
    with embedded_orch.open(arguments.db) as orch:
        runner = ProcessPoolTaskRunner(max_workers=arguments.workers)
        errors = sweep.with_options(task_runner=runner)(arguments.points)
        cached = orch.task_runs.count(state_name="Cached")
    best = min(errors, key=lambda window: errors[window])
    for window, error in errors.items():
        print(f"window {window:>4}: error {error:.4f}{'   <- best' if window == best else ''}")
    print(f"{len(errors)} settings, {cached} of them known from before")
    return 0


if __name__ == "__main__":
    sys.exit(main())

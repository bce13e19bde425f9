"""Futures of submitted and mapped tasks, and waiting for several of them."""

from __future__ import annotations

from embedded_orch.engine.awaiting import DoneAndNotDoneFutures, as_completed, wait
from embedded_orch.engine.futures import Future, FutureList
from embedded_orch.engine.inputs import results_in, states_in

__all__ = [
    "DoneAndNotDoneFutures",
    "Future",
    "FutureList",
    "PrefectConcurrentFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]

PrefectFuture = Future
PrefectConcurrentFuture = Future
PrefectFutureList = FutureList

resolve_futures_to_results = results_in
resolve_futures_to_states = states_in

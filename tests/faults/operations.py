"""The table of operations that the fault tests interrupt: kinds of runs, and what is done to runs.

To add one, write its flow in ``watched_flows``, what brings it to its end in ``acts``, and a row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from embedded_orch import Orchestrator
from tests.faults import acts
from tests.faults import watched_flows as flows


class Operation(NamedTuple):
    """One row of the table.

    Attributes:
        act: brings it to its end, from wherever it is.
        calls: on record as Completed at the end.
        loaded: rows that its tasks write themselves: each there once at the end, and there when its
            task is on record, and only then.
        undone: calls that are undone, and so may be made again.
        at_least_once: what is called again when it is not known whether it was.
        prepare: run before, in a process of its own that may kill itself.
        queries: return the calls on record that are no runs.
        arranged: what surrounds all that is done after the preparation.
        check: what else is wrong with a database, whatever was done in it.
        is_on_server: whether there is such a thing on Postgres.
    """

    name: str
    act: Callable[[Orchestrator], None]
    calls: frozenset[str]
    loaded: frozenset[str] = frozenset()
    undone: frozenset[str] = frozenset()
    at_least_once: frozenset[str] = frozenset()
    prepare: Callable[[Orchestrator], None] | None = None
    queries: tuple[str, ...] = ()
    arranged: Callable[[], AbstractContextManager[None]] = nullcontext
    check: Callable[[str], list[str]] | None = None
    is_on_server: bool = True


def calls(*names: str) -> frozenset[str]:
    """Names of calls."""
    return frozenset(names)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("opening", acts.only_open, calls()),
        Operation(
            "migration",
            acts.only_open,
            calls("first", "second", "plain", "one", "two"),
            prepare=acts.name_values_and_run,
            queries=("select name from variable",),
            arranged=acts.knowing_a_second_migration,
            check=acts.check_migrated,
        ),
        Operation("task", partial(acts.finish, flows.plain), calls("first", "second", "plain")),
        Operation("map", partial(acts.finish, flows.mapped), calls("a", "b", "c", "mapped")),
        Operation(
            "submit",
            partial(acts.finish, flows.submitted),
            calls("first", "second", "after", "submitted"),
        ),
        Operation("retry", partial(acts.finish, flows.retried), calls("stumbling", "retried")),
        Operation("cache", acts.finish_cached, calls("cached", "storing", "hitting")),
        Operation(
            "subflow",
            partial(acts.finish, flows.parent),
            calls("in child", "child", "in other child", "other child", "parent"),
        ),
        Operation("suspend", acts.finish_suspended, calls("before", "behind", "suspended")),
        Operation("pause", acts.finish_paused, calls("before", "behind", "paused")),
        Operation("waiting", acts.finish_waiting, calls("before", "behind", "waiting")),
        Operation("limits", acts.finish_limited, calls("a", "b", "limited")),
        Operation(
            "transaction",
            partial(acts.finish, flows.loading),
            calls("one", "two", "loading"),
            loaded=calls("one", "one, again", "two", "two, again"),
            prepare=acts.make_table,
        ),
        Operation(
            "async",
            partial(acts.finish, flows.loading_later),
            calls("one", "a", "b", "loading later"),
            loaded=calls("one"),
            prepare=acts.make_table,
        ),
        Operation(
            "keyed transaction", partial(acts.finish, flows.keyed), calls("of the day", "keyed")
        ),
        Operation(
            "rollback",
            partial(acts.finish, flows.undone),
            calls("kept", "undone"),
            undone=calls("to be undone"),
        ),
        Operation("artifact", partial(acts.finish, flows.showing), calls("shown", "showing")),
        Operation(
            "variable",
            acts.name_values,
            calls("one", "two"),
            at_least_once=calls("one", "two"),
            queries=("select name from variable",),
        ),
        Operation(
            "hook",
            acts.finish_hooked,
            calls("hooked step", "hooked"),
            at_least_once=calls("hook"),
        ),
        Operation(
            "recovery",
            acts.recover,
            calls(
                *("done in lasting", "died in lasting", "lasting"),
                *("done in failing", "died in failing", "failing"),
            ),
            prepare=acts.die_in_two_runs,
        ),
        Operation(
            "cancelling the dead",
            acts.cancel,
            calls("done in lasting", "done in failing"),
            prepare=acts.die_in_two_runs,
        ),
        Operation(
            "retention",
            acts.prune,
            calls("first", "second", "plain"),
            prepare=acts.leave_an_old_run,
            arranged=acts.removing_little_at_once,
        ),
        Operation(
            "backup",
            acts.back_up,
            calls("first", "second", "plain"),
            check=acts.check_copy,
            is_on_server=False,
        ),
    )
}

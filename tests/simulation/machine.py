"""A virtual machine: processes on one SQLite file, of which a seed says all that happens to them.

First the time of faults: flows are begun, continued, paused and cancelled by whichever process
comes to it, and every step may meet a fault. Then a quiet time, in which nothing fails any more,
and everything that was begun has to end. What must hold stands in ``ledger`` and in
``tests.faults.invariants``; what the flows are in ``workload``; what can fail in ``faults``.

The machine's own time is monotonic. What a process sees is that and an offset, which faults change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import apsw

from embedded_orch import aresume_flow_run, errors, send_signal
from embedded_orch.engine.retention import Retention
from tests.builders import NOON
from tests.faults.invariants import problems, unburied
from tests.simulation.faults import FAULTS, LEASE, SECOND
from tests.simulation.ledger import Ledger
from tests.simulation.stepping import stepping
from tests.simulation.threads import Cancelled, Killed, Thread, Wait
from tests.simulation.virtual_process import VirtualProcess
from tests.simulation.workload import WORKLOAD, Stumbled

T = TypeVar("T")

PROCESSES = 3
_BACKGROUND = ("writer", "writer", "log", "watch", "sweep", "upkeep")
# What a person's call may raise of ours when processes die around it.
_TOLD = (
    errors.DatabaseBusy,
    errors.RunNotResumable,
    errors.RunNotRecoverable,
    errors.RunNotCancellable,
    errors.NotPausedError,
    errors.RunNotPausable,
    errors.OwnershipLost,
    errors.CancelledRun,
    errors.CrashedRun,
    errors.FailedRun,
    errors.UpstreamFailed,
    errors.FlowPauseTimeout,
    errors.RunNotFound,
    errors.SignalRefused,
    errors.MissingContextError,
    errors.Pause,
    Stumbled,
)


class Violation(AssertionError):
    """Something that must hold did not."""


class Machine:
    """One machine, from its seed to its end.

    Args:
        seed: says all.
        template: a database file with a schema and nothing else.
        folder: where the machine has its own.
        steps: of the time of faults.
        faults: the names of those it may meet; a seeded choice of them when not given.
        flows: the names of rows of the workload; the same.
    """

    def __init__(
        self,
        seed: int,
        template: Path,
        folder: Path,
        *,
        steps: int = 250,
        faults: tuple[str, ...] | None = None,
        flows: tuple[str, ...] | None = None,
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.time = NOON
        self.offset = 0
        self.path = str(folder / f"{seed}.db")
        shutil.copyfile(template, self.path)
        self.steps = steps
        chosen = [name for name in FAULTS if self.chance.random() < 0.5]
        self.faults = {name: FAULTS[name] for name in (chosen if faults is None else faults)}
        self.met: set[str] = set()
        self.ended: dict[UUID, tuple[str, int]] = {}
        self.flows = flows or tuple(self.chance.sample(list(WORKLOAD), 4))
        self.slowness = 0
        self.ledger = Ledger()
        # Every third machine forgets what completed some hours ago.
        self.retention: Any = Retention(completed=timedelta(hours=2)) if seed % 3 == 0 else False
        self.trace: list[str] = [f"seed {seed}: {', '.join(self.flows)}; {', '.join(chosen)}"]
        self.processes: list[VirtualProcess] = []
        self.thread: Any = None
        self._names = 0
        self._looker = apsw.Connection(self.path)
        self._looker.execute("PRAGMA query_only = 1")
        # Answers that hold until somebody commits, and the version of the file that they are of.
        self._remembered: dict[str, Any] = {}
        self._remembered_of = 0

    # -- what threads and patches ask of it ------------------------------------------------------

    def note(self, line: str) -> None:
        self.trace.append(f"{(self.time - NOON) / SECOND:.4f} {line}")

    def pass_seconds(self, seconds: float) -> None:
        """A plain function sleeps: nobody else runs meanwhile."""
        self.time += round(seconds * SECOND)

    def monotonic(self) -> float:
        """The clock in seconds that no fault sets, and that all processes of a host share."""
        return self.time / SECOND

    def looks_dead(self, owner_id: UUID) -> bool:
        """Whether an owner has been stopped for so long that others take it for dead."""
        return any(
            process.engine.owner.id == owner_id
            and process.stopped_since is not None
            and self.time - process.stopped_since > LEASE
            for process in self.processes
        )

    def has_threads_of(self, runner: object) -> bool:
        return any(
            thread.runner is runner and not thread.has_ended
            for process in self.processes
            for thread in process.threads
        )

    def cancel_threads_of(self, runner: object) -> None:
        for process in self.processes:
            for thread in process.threads:
                if thread.runner is runner:
                    thread.cancel(runner)

    def spawn_submitted(self, runner: object, run: Callable[[], Coroutine[Wait, Any, Any]]) -> None:
        from contextvars import copy_context

        process: VirtualProcess = self.thread.process
        thread = process.spawn(self._name("task"), run(), copy_context())
        thread.runner = runner

    def epoch_of(self, run_id: UUID) -> int | None:
        return self.look("SELECT epoch FROM flow_run WHERE id = ?", run_id.bytes).get  # type: ignore[no-any-return]

    def look(self, sql: str, *values: Any) -> Any:
        return self._looker.execute(sql, values)

    def roots(self) -> dict[UUID, tuple[str, int]]:
        """The runs that no other run made: their names in the workload, and their numbers."""
        return self._remember("roots", self._find_roots)

    def _find_roots(self) -> dict[UUID, tuple[str, int]]:
        rows = self.select(
            "SELECT flow_run.id, flow.name, parameters FROM flow_run JOIN flow ON flow.id = flow_id"
            " WHERE parent_task_run_id IS NULL ORDER BY flow_run.id"
        )
        return {
            UUID(bytes=id): (name.replace("-", " "), json.loads(parameters)["number"])
            for id, name, parameters in rows
        }

    def _remember(self, what: str, find: Callable[[], T]) -> T:
        """The answer to a question about the file, which is asked again after a commit only."""
        version = self._looker.pragma("data_version")
        if version != self._remembered_of:
            self._remembered.clear()
            self._remembered_of = version
        if what not in self._remembered:
            self._remembered[what] = find()
        found: T = self._remembered[what]
        return found

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        return list(self._looker.execute(sql))

    def check_slots(self) -> None:
        """Never are more slots held than there are."""
        for held, limit in self.look(
            "SELECT sum(slots), slot_limit FROM slot_claim JOIN concurrency_limit ON id = limit_id"
            " WHERE state = 'HOLDING' GROUP BY id"
        ):
            if held > limit:
                self.ledger.violations.append(f"{held} slots are held of {limit}")

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it.

        Raises:
            Violation: something that must hold did not; it says the seed.
        """
        with stepping(self):
            try:
                self._set_up()
                self._time_of_faults()
                self._quiet_time()
                self._rest()
            except Violation:
                raise
            except BaseException as error:
                raise Violation(self._told(f"{type(error).__name__}: {error}")) from error
            finally:
                for process in self.processes:
                    if not process.is_dead:
                        process.kill()
                self._looker.close()

    def _set_up(self) -> None:
        for _ in range(PROCESSES):
            self._start_process()
        first = self.processes[0]
        first.orchestrator.concurrency_limits.create("db", 2)
        first.orchestrator.concurrency_limits.create("tag:limited", 1)

    def _time_of_faults(self) -> None:
        for _ in range(self.steps):
            living = self._living()
            for name, fault in self.faults.items():
                if living and self.chance.random() < fault.chance:
                    self.met.add(name)
                    fault.strike(self, self.chance.choice(living))
                    living = self._living()
            if len(living) < PROCESSES and self.chance.random() < 0.1:
                self._start_process()
            if living and self.chance.random() < 0.12:
                self._act(self.chance.choice(living))
            self._step()

    def _quiet_time(self) -> None:
        """No more faults: what runs goes on, then what was left is continued until it has ended."""
        self.faults, self.slowness = {}, 0
        self.note("quiet")
        for process in self._living():
            process.fuse, process.dies_after_commit = None, False
            process.is_busy, process.is_locked_out = False, False
            process.stopped_until = self.time
        if not self._living():
            self._start_process()
        self._run_until_idle()
        for process in self._living():
            process.close()
        last = self._start_process()
        self._recover_twice(last)
        # Only now have all the dead been found.
        self._check()
        for _ in range(4):
            self._continue_all(last)
        last.spawn("hooks", self._owed_hooks(last))
        self._run_until_idle()
        last.close()

    def _rest(self) -> None:
        self.ledger.violations += unburied(self.select)
        self.ended = self.roots()
        for run_id, (name, number) in self.ended.items():
            self._check_end(run_id, name, number)
        # What retention has removed can be asked no more.
        if not self.retention:
            for run_id in self.ledger.returned.keys() - self.ended.keys():
                self.ledger.violations.append(f"{run_id} returned, and is not there")
        self._check()

    def _check_end(self, run_id: UUID, name: str, number: int) -> None:
        row = self.look("SELECT state_type FROM flow_run WHERE id = ?", run_id.bytes).get
        expected = WORKLOAD[name].expected(number)
        ends = {"COMPLETED", "CANCELLED"} if run_id in self.ledger.cancelled else {"COMPLETED"}
        if row not in ends:
            self.ledger.violations.append(f"{name} {run_id} ended as {row}")
        if run_id in self.ledger.returned and self.ledger.returned[run_id] != expected:
            self.ledger.violations.append(f"{name} returned {self.ledger.returned[run_id]!r}")
        if name == "booking" and row == "COMPLETED":
            booked = self.look("SELECT step FROM booking WHERE run_id = ?", run_id.hex).fetchall()
            if sorted(step for (step,) in booked) != expected:
                self.ledger.violations.append(f"{run_id} booked {booked}")
        if name == "hooked" and run_id not in self.ledger.hooked:
            self.ledger.violations.append(f"the hook of {run_id} was never called")

    def _check(self) -> None:
        violations = self.ledger.violations or [*problems(self.select), *self._without_a_line()]
        for run_id, step in () if self.retention else self.ledger.acknowledged:
            if not self.look("SELECT 1 FROM flow_run WHERE id = ?", run_id.bytes).get:
                violations.append(f"step {step} of {run_id} was acknowledged, and is gone")
        if violations:
            raise Violation(self._told("\n".join(violations)))

    def _without_a_line(self) -> list[str]:
        """Tasks that have completed, each of which logs a line, and have none on record."""
        return [
            f"task run {id.hex()} has completed, and what it logged is not there"
            for (id,) in self.select(
                "SELECT id FROM task_run WHERE name LIKE 'work-%' AND state_name = 'Completed'"
                " AND NOT EXISTS (SELECT 1 FROM log WHERE log.task_run_id = task_run.id)"
                " AND NOT EXISTS"
                " (SELECT 1 FROM removal WHERE removal.flow_run_id = task_run.flow_run_id)"
                " ORDER BY id"
            )
        ]

    def _told(self, what: str) -> str:
        told = "\n".join(self.trace[-60:])
        return f"seed {self.seed}: {what}\n\nrepeat it with --seed {self.seed}\n{told}"

    # -- processes -------------------------------------------------------------------------------

    def _living(self) -> list[VirtualProcess]:
        return [process for process in self.processes if not process.is_dead]

    def _start_process(self) -> VirtualProcess:
        process = VirtualProcess(self, self._name("p"), offset=self.offset)
        self.processes.append(process)
        self.note(f"{process.name} starts")
        return process

    def kill(self, process: VirtualProcess) -> None:
        self.note(f"{process.name} is killed")
        process.kill()

    def take_by_force(self, process: VirtualProcess) -> None:
        """Somebody takes a run from whoever runs it."""
        rows = self.select(
            "SELECT id FROM flow_run WHERE state_type = 'RUNNING' AND parent_task_run_id IS NULL"
            " ORDER BY id"
        )
        if rows:
            run_id = UUID(bytes=self.chance.choice(rows)[0])
            self.note(f"{process.name} takes {run_id} by force")
            recover = process.orchestrator.recover
            taking = partial(self._quietly, partial(recover, run_id, force=True))
            self._guarded(process, lambda: process.context.copy().run(taking))

    def _name(self, what: str) -> str:
        self._names += 1
        return f"{what}{self._names}"

    # -- what people do --------------------------------------------------------------------------

    def _act(self, process: VirtualProcess) -> None:
        """Somebody does something in a process: begins a run, or moves one."""
        if process.stopped_since is not None:
            return
        roots = self.roots()
        if self.chance.random() < 0.4 and len(roots) < 6:
            name, number = self.chance.choice(self.flows), self.chance.randrange(6)
            process.spawn(self._name("flow"), self._begin(process, name, number))
            return
        rows = self.select(
            "SELECT id, state_type, state_name FROM flow_run"
            " WHERE parent_task_run_id IS NULL AND state_type <> 'COMPLETED' ORDER BY id"
        )
        if not rows:
            return
        id, state_type, _ = self.chance.choice(rows)
        run_id = UUID(bytes=id)
        if state_type == "PAUSED":
            self._let_go(process, run_id)
        elif roots[run_id][0] == "signalled" and self.chance.random() < 0.5:
            process.spawn(self._name("signal"), self._signal(run_id))
        elif self.chance.random() < 0.1:
            self.ledger.cancelled.add(run_id)
            process.spawn(self._name("cancel"), self._cancel(process, run_id))
        else:
            process.spawn(self._name("resume"), self._resume(run_id, roots[run_id][0]))

    def _let_go(self, process: VirtualProcess, run_id: UUID) -> None:
        waking = self._tolerant(lambda: aresume_flow_run(run_id))
        process.spawn(self._name("let go"), waking)

    async def _signal(self, run_id: UUID) -> None:
        send = partial(send_signal, run_id, "go", "go")
        if await Wait("signal", lambda: self._quietly(send)):
            self.ledger.signal_counts(run_id)

    async def _begin(self, process: VirtualProcess, name: str, number: int) -> None:
        flow = WORKLOAD[name].flow
        state = await self._tolerant(lambda: flow(number, return_state=True))
        if state is not None and state.is_completed():
            self._returned(state.state_details.flow_run_id, await state.aresult())

    async def _resume(self, run_id: UUID, name: str) -> None:
        value = await self._tolerant(lambda: WORKLOAD[name].flow.resume(run_id))
        if value is not None:
            self._returned(run_id, value)

    def _returned(self, run_id: UUID, value: Any) -> None:
        self.ledger.returned[run_id] = value

    async def _cancel(self, process: VirtualProcess, run_id: UUID) -> None:
        await Wait(
            "cancel", lambda: self._quietly(lambda: process.orchestrator.flow_runs.cancel(run_id))
        )

    async def _owed_hooks(self, process: VirtualProcess) -> None:
        flows = [row.flow for row in WORKLOAD.values()]
        await Wait("hooks", lambda: process.orchestrator.run_owed_hooks(*flows))

    async def _tolerant(self, call: Callable[[], Any]) -> Any:
        try:
            return await call()
        except (*_TOLD, Cancelled) as error:
            self.note(f"{self.thread}: {type(error).__name__}: {str(error)[:160]}")
            return None

    def _quietly(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except _TOLD as error:
            self.note(f"{self.thread}: {type(error).__name__}: {str(error)[:160]}")
            return None

    # -- steps -----------------------------------------------------------------------------------

    def _step(self) -> bool:
        """One step of somebody; False when nobody has anything to do, ever."""
        self._wake_the_stopped()
        living = [process for process in self._living() if process.stopped_since is None]
        if living and self.chance.random() < 0.15:
            process, turn = self.chance.choice(living), self.chance.choice(_BACKGROUND)
            alive = self._unfinished() if turn == "upkeep" else set()
            self._guarded(process, lambda: process.turn_of(turn))
            if turn == "upkeep" and self._gone(alive):
                raise Violation(self._told("the retention has removed a run that had not ended"))
        ready = [
            thread
            for process in living
            for thread in process.threads
            if not process.is_dead and self._can_go_on(thread)
        ]
        self.time += self.chance.randrange(1, 2000)
        if ready:
            thread = self.chance.choice(ready)
            self._guarded(thread.process, lambda: self._go_on(thread), thread)
            return True
        return self._let_time_pass(living)

    def _unfinished(self) -> set[bytes]:
        query = "SELECT id FROM flow_run WHERE state_type <> 'COMPLETED'"
        return {id for (id,) in self.select(query)}

    def _gone(self, ids: set[bytes]) -> set[bytes]:
        return ids - {id for (id,) in self.select("SELECT id FROM flow_run")}

    def _can_go_on(self, thread: Thread) -> bool:
        if thread.answer is not None:
            return self.time >= thread.answered_at
        return thread.wait is None or thread.is_cancelled_here or thread.wait.is_ready(self.time)

    def _go_on(self, thread: Thread) -> None:
        self.thread = thread
        wait = thread.wait
        self.note(f"{thread} {'begins' if wait is None else wait.what}")
        value: Any = None
        error: BaseException | None = None
        if thread.answer is not None:
            (value, error), thread.answer = thread.answer, None
        elif wait is not None and thread.is_cancelled_here:
            error = thread.take_cancellation()
        elif wait is not None and wait.action is not None:
            value, error = self._acted(thread, wait.action)
            if self.slowness:
                thread.answer = (value, error)
                thread.answered_at = self.time + self.slowness
                self.slowness = 0
                return
        try:
            thread.go_on(value, error)
        finally:
            if thread.has_ended:
                thread.process.threads.remove(thread)
        if thread.wait is not None and thread.wait.seconds is not None:
            thread.wait.due = self.time + round(thread.wait.seconds * SECOND)

    def _acted(self, thread: Thread, action: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        try:
            return thread.context.run(action), None
        except Killed:
            raise
        except BaseException as raised:
            return None, raised

    def _guarded(
        self, process: VirtualProcess, call: Callable[[], Any], thread: Thread | None = None
    ) -> None:
        """Do something in a process, which may be killed by that.

        Args:
            process: that does it.
            call: what it does.
            thread: of which it is a step, if of any.
        """
        watched = {} if thread is None else self._runs_lost_to_others(thread)
        try:
            call()
        except Killed:
            if not process.is_dead:
                self.kill(process)
        except Cancelled:
            # Of what nobody waits for any more.
            watched = {}
        if process.is_dying and not process.is_dead:
            self.kill(process)
        if "locked" in self.met:
            # The lines of a task are there as soon as its end is, also where their commit failed.
            self.ledger.violations += self._remember("lines", self._without_a_line)
        for run_id, before in watched.items():
            after = self._fingerprint(run_id)
            # Whoever takes a run, or buries who had it, begins another epoch, and may be anybody.
            is_taken = self._epoch_in(after) != self._epoch_in(before)
            if after != before and not is_taken and not self._owns(process, run_id):
                self.ledger.violations.append(
                    f"{process.name} changed {run_id.hex()}, which it had lost"
                )
        if self.ledger.violations:
            raise Violation(self._told("\n".join(self.ledger.violations)))

    def _runs_lost_to_others(self, thread: Thread) -> dict[bytes, Any]:
        """The run that a thread believes to be part of, and those that called it, where somebody
        else has taken them; as they are.

        People act in threads that are part of none, and may cancel what they like.
        """
        from embedded_orch.engine.contexts import flow_run_context

        found = {}
        run = thread.context.get(flow_run_context)
        while run is not None:
            run_id = run.run_id.bytes
            # Or another thread of the process has taken the run back.
            is_past = run.epoch < (self.epoch_of(run.run_id) or 0)
            if is_past and not self._owns(thread.process, run_id):
                found[run_id] = self._fingerprint(run_id)
            run = run.caller
        return found

    def _owns(self, process: VirtualProcess, run_id: bytes) -> bool:
        owner = self.look("SELECT owner_id FROM flow_run WHERE id = ?", run_id).get
        return bool(owner == process.engine.owner.id.bytes)

    def _fingerprint(self, run_id: bytes) -> list[Any]:
        return [
            self.look(sql, run_id).fetchall()
            for sql in (
                "SELECT state_id, run_count, end_time, owner_id, epoch FROM flow_run WHERE id = ?",
                "SELECT id, state_id, run_count FROM task_run WHERE flow_run_id = ? ORDER BY id",
            )
        ]

    def _epoch_in(self, fingerprint: list[Any]) -> int:
        """Of a run that is there; 0 of one that retention has removed."""
        return int(fingerprint[0][0][-1]) if fingerprint[0] else 0

    def _wake_the_stopped(self) -> None:
        for process in self._living():
            if process.stopped_since is not None and self.time >= process.stopped_until:
                self.note(f"{process.name} goes on")
                process.stopped_since = None

    def _let_time_pass(self, living: list[VirtualProcess]) -> bool:
        """Nobody can go on: the clock moves to where somebody can."""
        dues = [
            thread.answered_at if thread.answer is not None else thread.wait.due
            for process in living
            for thread in process.threads
            if thread.wait is not None
        ]
        dues += [each.stopped_until for each in self._living() if each.stopped_since is not None]
        known = [due for due in dues if due is not None]
        if not known:
            return False
        self.time = max(self.time, min(known))
        return True

    # -- the quiet time --------------------------------------------------------------------------

    def _run_until_idle(self) -> None:
        for _ in range(20_000):
            if not any(process.threads for process in self._living()):
                return
            for process in self._living():
                if self.chance.random() < 0.02:
                    self._let_go_of_the_paused(process)
            if not self._step():
                break
        waiting = [
            f"{thread} at {thread.wait.what if thread.wait else 'its beginning'}"
            for process in self._living()
            for thread in process.threads
        ]
        if waiting:
            raise Violation(self._told(f"nothing fails, and these never end: {waiting}"))

    def _let_go_of_the_paused(self, process: VirtualProcess) -> None:
        for run_id, (name, _) in self.roots().items():
            if name == "signalled" and run_id.bytes in self._unfinished():
                process.spawn(self._name("signal"), self._signal(run_id))
        for (id,) in self.select("SELECT id FROM flow_run WHERE state_type = 'PAUSED' ORDER BY id"):
            self._let_go(process, UUID(bytes=id))

    def _recover_twice(self, process: VirtualProcess) -> None:
        """What a second recovery finds is what the first one left."""
        process.turn_of("sweep")
        before = self._everything()
        process.turn_of("sweep")
        if self._everything() != before:
            self.ledger.violations.append("a second recovery changed something")

    def _everything(self) -> list[Any]:
        return [
            self.select(f"SELECT * FROM {table} ORDER BY 1")
            for table in ("flow_run", "task_run", "process", "slot_claim")
        ]

    def _continue_all(self, process: VirtualProcess) -> None:
        self._let_go_of_the_paused(process)
        self._run_until_idle()
        for run_id, (name, _) in self.roots().items():
            row = self.look("SELECT state_type FROM flow_run WHERE id = ?", run_id.bytes).get
            is_over = row in (None, "COMPLETED", "PAUSED")
            if not is_over and not (row == "CANCELLED" and run_id in self.ledger.cancelled):
                process.spawn(self._name("resume"), self._resume(run_id, name))
        self._run_until_idle()

"""Where the submitted tasks of a flow run: in threads, or in processes.

Give one to ``@flow(task_runner=...)``; each run of the flow has its own of that kind. Or enter it
yourself, and submit tasks to it wherever you are.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from embedded_orch.engine.runner import DEFAULT_WORKERS, Runner
from embedded_orch.errors import ConfigurationError, MissingContextError, OptionNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from embedded_orch.engine.futures import Future, FutureList
    from embedded_orch.tasks import Task

__all__ = [
    "ConcurrentTaskRunner",
    "ProcessPoolTaskRunner",
    "TaskRunner",
    "ThreadPoolTaskRunner",
]


class TaskRunner(ABC):
    """What :class:`ThreadPoolTaskRunner` and :class:`ProcessPoolTaskRunner` have in common.

    It only says how tasks run; what runs them is made for each flow run, and for each ``with``
    block. Outside of a flow the tasks that are submitted to it belong to no flow run.
    """

    def __init__(self, max_workers: int | None) -> None:
        if max_workers is not None and (type(max_workers) is not int or max_workers < 1):
            raise ConfigurationError(
                f"max_workers={max_workers!r}: it is a number of tasks, 1 or more, or None"
            )
        self._given = max_workers
        self._runner: Runner | None = None

    def __init_subclass__(cls) -> None:
        for name in ("submit", "map"):
            if name in vars(cls):
                raise OptionNotSupported(
                    f"{cls.__name__}.{name}: a task runner that submits in a way of its own is not "
                    f"supported; take ThreadPoolTaskRunner or ProcessPoolTaskRunner"
                )

    @property
    def name(self) -> str:
        """What kind it is, in a word."""
        return type(self).__name__.lower().removesuffix("taskrunner")

    @abstractmethod
    def duplicate(self) -> Self:
        """Another one that does the same."""

    @abstractmethod
    def open_runner(self) -> Runner:
        """What runs tasks in the way that this says."""

    def submit(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Future[Any]] | None = None,
    ) -> Future[Any]:
        """Run a task with these parameters, inside of the ``with`` block.

        Args:
            task: what to run.
            parameters: by name; may hold futures.
            wait_for: futures that have to end first.

        Raises:
            MissingContextError: the runner was not entered.
        """
        return task.submit_to(self._entered(), parameters, wait_for)

    def map(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        wait_for: Iterable[Future[Any]] | None = None,
    ) -> FutureList[Any]:
        """Run a task once for each item of the iterables among the parameters.

        Args:
            task: what to run.
            parameters: by name; see :meth:`Task.map`.
            wait_for: futures that have to end first.
        """
        return task.map_to(self._entered(), parameters, wait_for)

    def _entered(self) -> Runner:
        if self._runner is None:
            raise MissingContextError(
                f"this {type(self).__name__} runs nothing yet: enter it, as in "
                f"`with {type(self).__name__}() as runner:`"
            )
        return self._runner

    def __enter__(self) -> Self:
        if self._runner is not None:
            raise MissingContextError(f"this {type(self).__name__} was entered already")
        self._runner = self.open_runner()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runner = self._entered()
        self._runner = None
        if error is not None:
            runner.interrupt()
        runner.stop()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._options() == other._options()

    def __hash__(self) -> int:
        return hash(type(self))

    def _options(self) -> tuple[Any, ...]:
        return (self._given,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_workers={self._given})"


class ThreadPoolTaskRunner(TaskRunner):
    """Plain tasks run in threads, and async ones on an event loop.

    Args:
        max_workers: how many plain tasks may run at one time; 64 when not given. Those that only
            wait for other tasks do not count.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(max_workers)

    @property
    def max_workers(self) -> int:
        """How many plain tasks may run at one time."""
        return self._given or DEFAULT_WORKERS

    def duplicate(self) -> Self:
        """Another one that does the same."""
        return type(self)(self._given)

    def open_runner(self) -> Runner:
        """What runs tasks in the way that this says."""
        return Runner(self.max_workers)


ConcurrentTaskRunner = ThreadPoolTaskRunner


class ProcessPoolTaskRunner(TaskRunner):
    """Tasks run in processes, plain and async ones, each call in one of them.

    Arguments and results are pickled. Functions have to be importable, or the extra
    ``[processes]`` installed. This process records the runs.

    Args:
        max_workers: how many tasks may run at one time; as many as there are processors when not
            given.
        initializer: called in each process when it starts.
        initargs: its arguments.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(max_workers)
        self._initializer = initializer
        self._initargs = initargs

    @property
    def max_workers(self) -> int:
        """How many tasks may run at one time."""
        return self._given or os.cpu_count() or 1

    def duplicate(self) -> Self:
        """Another one that does the same."""
        return type(self)(self._given, initializer=self._initializer, initargs=self._initargs)

    def open_runner(self) -> Runner:
        """What runs tasks in the way that this says."""
        from embedded_orch.engine.processes import ProcessRunner

        initialize = None
        if self._initializer is not None:
            initialize = (self._initializer, self._initargs)
        return ProcessRunner(
            self.max_workers, program="embedded_orch.pool_process", initialize=initialize
        )

    def _options(self) -> tuple[Any, ...]:
        return (self._given, self._initializer, self._initargs)

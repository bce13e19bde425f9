"""The ``@task`` decorator, and what a decorated function can do.

Decorating checks the function and its options, and imports nothing that only a call needs: the
engine is imported by the first call.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from embedded_orch import errors
from embedded_orch.decorated import Decorated
from embedded_orch.engine.checking import MOST_DELAYS
from embedded_orch.engine.options import TaskOptions

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Coroutine,
        Generator,
        Mapping,
        Sequence,
    )
    from typing import Literal, Unpack
    from uuid import UUID

    from embedded_orch.cache_policies import CachePolicy
    from embedded_orch.context import TaskRunContext
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.contexts import TaskRunContext as CallerContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.futures import Future, FutureList
    from embedded_orch.engine.options import TaskArguments
    from embedded_orch.engine.runner import Runner
    from embedded_orch.engine.specs import TaskSpec
    from embedded_orch.engine.task_call import TaskCall
    from embedded_orch.engine.transactions import BaseTransaction
    from embedded_orch.runs import TaskRun
    from embedded_orch.states import State

    TaskHook = Callable[["Task[..., Any]", TaskRun, State[Any]], Any]
    TransactionHook = Callable[[BaseTransaction], Any]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
H = TypeVar("H", bound="TaskHook")
TH = TypeVar("TH", bound="TransactionHook")


class Task(Decorated[P, R_co, TaskOptions]):
    """A function whose calls are recorded, retried and, in a resumed flow run, not made twice.

    Calling it runs it, here and now, and returns what it returns. ``submit`` runs it beside the
    caller, ``map`` once for each item.

    Attributes:
        fn: the function.
        name: for people.
        options: what its decorator was given, and the defaults of the rest; each is an attribute of
            the task too.
        is_async: whether calling it gives a coroutine or an asynchronous generator.
        is_generator: whether calling it gives a generator, plain or asynchronous.
    """

    _kind = "task"

    def __init__(
        self, fn: Callable[P, R_co] | classmethod[Any, P, R_co], **options: Unpack[TaskArguments]
    ) -> None:
        super().__init__(fn, TaskOptions(options))
        function: Any = self.fn
        self.name = (
            self.options.name or getattr(function, "__name__", None) or type(function).__name__
        )
        self._cache = self._cache_policy()
        self._spec: TaskSpec | None = None

    @property
    def on_completion_hooks(self) -> list[TaskHook]:
        """What is called when a run has completed."""
        return self.options.hooks["on_completion"]

    @property
    def on_failure_hooks(self) -> list[TaskHook]:
        """What is called when a run has failed."""
        return self.options.hooks["on_failure"]

    @property
    def on_running_hooks(self) -> list[TaskHook]:
        """What is called when an attempt at a run begins."""
        return self.options.hooks["on_running"]

    @property
    def on_commit_hooks(self) -> list[TransactionHook]:
        """What is called with the transaction when it commits what a run did."""
        return self.options.hooks["on_commit"]

    @property
    def on_rollback_hooks(self) -> list[TransactionHook]:
        """What is called with the transaction when it undoes what a run did."""
        return self.options.hooks["on_rollback"]

    def on_commit(self, fn: TH) -> TH:
        """Have ``fn(transaction)`` called when what a run did is committed; a decorator."""
        self.on_commit_hooks.append(fn)
        return fn

    def on_rollback(self, fn: TH) -> TH:
        """Have ``fn(transaction)`` called when what a run did is rolled back; a decorator."""
        self.on_rollback_hooks.append(fn)
        return fn

    def on_completion(self, fn: H) -> H:
        """Have ``fn(task, task_run, state)`` called when a run has completed; a decorator."""
        self.on_completion_hooks.append(fn)
        return fn

    def on_failure(self, fn: H) -> H:
        """Have ``fn(task, task_run, state)`` called when a run has failed; a decorator."""
        self.on_failure_hooks.append(fn)
        return fn

    def on_running(self, fn: H) -> H:
        """Have ``fn(task, task_run, state)`` called when an attempt begins; a decorator."""
        self.on_running_hooks.append(fn)
        return fn

    def _cache_policy(self) -> CachePolicy | None:
        options = self.options
        keyed = (options.cache_policy, options.cache_key_fn, options.result_storage_key)
        if all(each is None for each in keyed):
            return None
        from embedded_orch.cache_policies import policy_of

        return policy_of(options, self._signature.parameters)

    def with_options(self, **options: Unpack[TaskArguments]) -> Task[P, R_co]:
        """The same function as a task with other options; those not given stay as they are.

        What is given takes the place of what was: tags and hooks are not added to the old ones.
        None is "not given" for ``name``, ``description``, ``tags``, ``version``, hooks, functions
        and times; the others it sets back to their defaults.
        """
        other: Task[P, R_co] = self._with(options)
        return other

    @property
    def task_key(self) -> str:
        """The function's module and qualified name, which identify its calls."""
        return self.spec.key

    @property
    def spec(self) -> TaskSpec:
        """What the engine knows of it."""
        if self._unbound is not None:
            spec: TaskSpec = self._unbound.spec
            return spec
        if self._spec is None:
            from embedded_orch.engine.specs import TaskSpec

            self._spec = TaskSpec(
                self.fn,
                name=self.name,
                signature=self._signature,
                is_async=self.is_async,
                options=self.options,
                decorated=self,
                cache=self._cache,
            )
        return self._spec

    def __get__(self, instance: object, owner: type | None = None) -> Task[..., R_co]:
        """The same task, bound to its object or class where it is a method."""
        bound: Task[..., R_co] = self._bound_to(instance, owner)
        return bound

    def _called(self, arguments: Mapping[str, Any], wait_for: object) -> Steps[State]:
        return self._new_call(_current_flow_run(), arguments, wait_for).steps()

    @overload
    def submit(
        self: Task[P, Generator[T, Any, Any]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> State[list[T]]: ...
    @overload
    def submit(
        self: Task[P, AsyncGenerator[T, Any]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> State[list[T]]: ...
    @overload
    def submit(
        self: Task[P, Generator[T, Any, Any]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> Future[list[T]]: ...
    @overload
    def submit(
        self: Task[P, AsyncGenerator[T, Any]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> Future[list[T]]: ...
    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> State[T]: ...
    @overload
    def submit(
        self, *args: Any, return_state: Literal[True], wait_for: object = None, **kwargs: Any
    ) -> State[R_co]: ...
    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> Future[T]: ...
    @overload
    def submit(
        self,
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> Future[R_co]: ...
    def submit(
        self, *args: Any, return_state: bool = False, wait_for: object = None, **kwargs: Any
    ) -> Any:
        """Run it beside the caller: in a thread, or an ``async def`` on the runner's loop.

        Args:
            args: for the function; see :meth:`__call__`.
            return_state: wait for it, and give its final state.
            wait_for: runs that have to have completed before it begins.
            kwargs: for the function.

        Raises:
            MissingContextError: no flow is running here.
        """
        runner = self._flow_run("submit").runner
        future = self._submit(runner, self._signature.bind(args, kwargs), wait_for)
        return _state_of(future) if return_state else future

    @overload
    def map(
        self: Task[P, Generator[T, Any, Any]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> list[State[list[T]]]: ...
    @overload
    def map(
        self: Task[P, AsyncGenerator[T, Any]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> list[State[list[T]]]: ...
    @overload
    def map(
        self: Task[P, Generator[T, Any, Any]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> FutureList[list[T]]: ...
    @overload
    def map(
        self: Task[P, AsyncGenerator[T, Any]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> FutureList[list[T]]: ...
    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> list[State[T]]: ...
    @overload
    def map(
        self, *args: Any, return_state: Literal[True], wait_for: object = None, **kwargs: Any
    ) -> list[State[R_co]]: ...
    @overload
    def map(
        self: Task[P, Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> FutureList[T]: ...
    @overload
    def map(
        self,
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: object = None,
        **kwargs: Any,
    ) -> FutureList[R_co]: ...
    def map(
        self, *args: Any, return_state: bool = False, wait_for: object = None, **kwargs: Any
    ) -> Any:
        """Submit it once for each item of the iterable arguments, which must be of one length.

        What is not iterable, is text or bytes, or is marked with :func:`unmapped` goes to each
        call as it is. A dict maps over its keys. Of ``allow_failure(items)``, ``quote(items)`` and
        ``opaque(items)`` each item is marked.

        Args:
            args: for the function.
            return_state: wait for all, and give their final states.
            wait_for: runs that have to have completed before any of them begins.
            kwargs: for the function.

        Raises:
            MissingContextError: no flow is running here.
            MappingLengthMismatch: the iterables have different lengths.
            MappingMissingIterable: no argument is iterable.
        """
        futures = self._map(self._flow_run("map").runner, args, kwargs, wait_for)
        return [_state_of(future) for future in futures] if return_state else futures

    def submit_to(
        self, runner: Runner, parameters: Mapping[str, Any], wait_for: object
    ) -> Future[Any]:
        """Run it by a runner that is open; see :meth:`TaskRunner.submit`."""
        return self._submit(runner, self._signature.bind((), parameters), wait_for)

    def map_to(
        self, runner: Runner, parameters: Mapping[str, Any], wait_for: object
    ) -> FutureList[Any]:
        """Run it once for each item by a runner that is open; see :meth:`TaskRunner.map`."""
        return self._map(runner, (), parameters, wait_for)

    def _map(
        self,
        runner: Runner,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wait_for: object,
    ) -> FutureList[Any]:
        from embedded_orch.engine.futures import FutureList
        from embedded_orch.engine.inputs import runs_at_the_top
        from embedded_orch.engine.mapping import spread_over

        signature = self._signature
        # Bound once as a whole: what does not fit is said before anything is waited for.
        upstream = runs_at_the_top(signature.bind(args, kwargs))
        return FutureList(
            [
                self._submit(runner, signature.bind(each_args, each_kwargs), wait_for, upstream)
                for each_args, each_kwargs in spread_over(args, kwargs, self.name)
            ]
        )

    def _new_call(
        self,
        flow_run: FlowRunContext | None,
        arguments: Mapping[str, Any],
        wait_for: object,
        upstream: Mapping[str, Sequence[UUID]] | None = None,
    ) -> TaskCall:
        _, current_task_run, task_call = _engine_parts()
        caller = current_task_run()
        return task_call(
            flow_run.engine if flow_run is not None else _current_engine(),
            self.spec,
            arguments,
            flow_run=flow_run,
            parent=caller,
            wait_for=wait_for,
            upstream=upstream,
        )

    def _submit(
        self,
        runner: Runner,
        arguments: Mapping[str, Any],
        wait_for: object,
        upstream: Mapping[str, Sequence[UUID]] | None = None,
    ) -> Future[Any]:
        from embedded_orch.engine.submission import submit

        return submit(self._new_call(_current_flow_run(), arguments, wait_for, upstream), runner)

    def _flow_run(self, what: str) -> FlowRunContext:
        flow_run = _current_flow_run()
        if flow_run is None:
            raise errors.MissingContextError(
                f"{self.name}.{what}() runs a task beside a flow, and no flow is running here; "
                f"call it inside a @flow, or call {self.name}() itself"
            )
        return flow_run


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(fn: classmethod[Any, P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskArguments]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, /, **options: Unpack[TaskArguments]) -> Any:
    """Make a function a task.

    Args:
        fn: the function, a plain or an ``async def`` one.
        options: see below; each may be left out.

    Options:
        name: for people; the function's name when not given.
        task_run_name: of its runs: a template such as ``"load-{path}"``, also over ``flow_run``
            and ``task_run``, or a function that returns the name and may take ``parameters``.
        description: for people; the docstring when not given.
        version: for people, recorded with each run.
        tags: of its runs.
        retries: how often it is called again when it raises.
        retry_delay_seconds: to wait before each retry; of several the last goes on. A function
            makes them from the number of retries, such as :func:`exponential_backoff`. The
            defaults of both are taken from ``EMBEDDED_ORCH_TASK_DEFAULT_RETRIES`` and
            ``EMBEDDED_ORCH_TASK_DEFAULT_RETRY_DELAY_SECONDS``.
        retry_jitter_factor: how far a delay may be longer, as a part of it; by chance it is
            longer or shorter, so that what failed together does not come back together.
        retry_condition_fn: ``condition(task, task_run, state)``, plain or async: whether a failure
            is retried. ``state`` is the failure, with the exception in ``state.data``.
        on_completion, on_failure, on_running: lists of hooks, plain or async:
            ``hook(task, task_run, state)`` is called once the state is stored. One that raises is
            logged and changes nothing.
        timeout_seconds: how long a call of the function may take; what takes longer is interrupted.
        on_commit, on_rollback: lists of hooks, plain or async: ``hook(transaction)`` is called when
            the transaction that the run is a part of is committed, or rolled back.
        record_start: "announced" commits the start of a call with its end or within 10 ms, and
            "before" waits for that commit, so that a start is on record whatever happens.

    Raises:
        OptionNotSupported: an option that there is not, or that is not supported yet.
        ConfigurationError: a value that an option cannot have.
        SignatureError: a parameter has a reserved name.
    """
    if fn is None:
        return lambda function: Task(function, **options)
    return Task(fn, **options)


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays for ``retry_delay_seconds`` that double with each retry.

    Args:
        backoff_factor: seconds before the first retry.
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**n for n in range(min(retries, MOST_DELAYS))]

    return delays


def task_input_hash(context: TaskRunContext, arguments: dict[str, Any]) -> str | None:
    """A ``cache_key_fn``: equal for calls of one task, unchanged, with equal arguments.

    Args:
        context: the task run.
        arguments: of the call, by parameter.

    Returns:
        The key; None when an argument cannot be told from others of its type.
    """
    from embedded_orch import values
    from embedded_orch.cache_policies import content_key, source_key

    try:
        inputs = content_key(arguments)
    except errors.ValueNotStorable:
        return None
    parts = {"task": context.task.task_key, "source": source_key(context), "inputs": inputs}
    return values.hash_inputs(parts).hex()


def _state_of(future: Future[Any]) -> State[Any]:
    future.wait()
    return future.state


@cache
def _engine_parts() -> tuple[
    Callable[[], FlowRunContext | None], Callable[[], CallerContext | None], type[TaskCall]
]:
    """What the first call imports, and the others find: an import statement looks each time."""
    from embedded_orch.engine.contexts import current_flow_run, current_task_run
    from embedded_orch.engine.task_call import TaskCall

    return current_flow_run, current_task_run, TaskCall


def _current_flow_run() -> FlowRunContext | None:
    return _engine_parts()[0]()


def _current_engine() -> Engine:
    from embedded_orch.orchestrator import registry

    return registry.current().engine

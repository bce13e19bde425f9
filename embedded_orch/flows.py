"""The ``@flow`` decorator, and what a decorated function can do.

Decorating checks the function and its options, and imports nothing that only a call needs: the
engine is imported by the first call.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from embedded_orch import errors
from embedded_orch.decorated import Decorated
from embedded_orch.engine.checking import flow_name
from embedded_orch.engine.options import FlowOptions
from embedded_orch.engine.running import (
    begun,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Unpack
    from uuid import UUID

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.options import FlowArguments, Match, OnChange
    from embedded_orch.engine.parameter_schema import ParameterSchema
    from embedded_orch.engine.records import Choices
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.orchestrator import Orchestrator
    from embedded_orch.runs import FlowRun
    from embedded_orch.states import State
    from embedded_orch.task_runners import TaskRunner
    from embedded_orch.tasks import Task

    FlowHook = Callable[["Flow[..., Any]", FlowRun, State[Any]], Any]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound="FlowHook")


class Flow(Decorated[P, R, FlowOptions]):
    """A function whose runs are recorded, retried and can be resumed.

    Attributes:
        fn: the function.
        name: of the flow; all its runs are found by it.
        options: what its decorator was given, and the defaults of the rest; each is an attribute of
            the flow too.
        is_async: whether calling it gives a coroutine or an asynchronous generator.
        is_generator: whether calling it gives a generator, plain or asynchronous.
    """

    _kind = "flow"

    def __init__(
        self, fn: Callable[P, R] | classmethod[Any, P, R], **options: Unpack[FlowArguments]
    ) -> None:
        super().__init__(fn, FlowOptions(options))
        self.name = flow_name(self.fn, self.options.name)
        self._spec: FlowSpec | None = None
        self._parameters: ParameterSchema | None = None

    @property
    def version(self) -> str | None:
        """Of the flow: the option, or an MD5 of the file that defines it."""
        return self.spec.version

    @property
    def on_completion_hooks(self) -> list[FlowHook]:
        """What is called when a run has completed."""
        return self.options.hooks["on_completion"]

    @property
    def on_failure_hooks(self) -> list[FlowHook]:
        """What is called when a run has failed."""
        return self.options.hooks["on_failure"]

    @property
    def on_running_hooks(self) -> list[FlowHook]:
        """What is called when an attempt at a run begins."""
        return self.options.hooks["on_running"]

    @property
    def on_cancellation_hooks(self) -> list[FlowHook]:
        """What is called when a run was cancelled."""
        return self.options.hooks["on_cancellation"]

    @property
    def on_crashed_hooks(self) -> list[FlowHook]:
        """What is called when a run has crashed."""
        return self.options.hooks["on_crashed"]

    def on_completion(self, fn: H) -> H:
        """Have ``fn(flow, flow_run, state)`` called when a run has completed; a decorator."""
        self.on_completion_hooks.append(fn)
        return fn

    def on_failure(self, fn: H) -> H:
        """Have ``fn(flow, flow_run, state)`` called when a run has failed; a decorator."""
        self.on_failure_hooks.append(fn)
        return fn

    def on_running(self, fn: H) -> H:
        """Have ``fn(flow, flow_run, state)`` called when an attempt begins; a decorator."""
        self.on_running_hooks.append(fn)
        return fn

    def on_cancellation(self, fn: H) -> H:
        """Have ``fn(flow, flow_run, state)`` called when a run was cancelled; a decorator."""
        self.on_cancellation_hooks.append(fn)
        return fn

    def on_crashed(self, fn: H) -> H:
        """Have ``fn(flow, flow_run, state)`` called when a run has crashed; a decorator."""
        self.on_crashed_hooks.append(fn)
        return fn

    def with_options(self, **options: Unpack[FlowArguments]) -> Flow[P, R]:
        """The same function as a flow with other options; those not given stay as they are.

        What is given takes the place of what was: tags and hooks are not added to the old ones.
        None is "not given", except for ``persist_result``, ``result_storage``,
        ``result_serializer`` and ``log_prints``, which it sets back to their defaults.
        """
        other: Flow[P, R] = self._with(options)
        return other

    @property
    def task_runner(self) -> TaskRunner:
        """Where the tasks that its runs submit are run."""
        from embedded_orch.task_runners import TaskRunner, ThreadPoolTaskRunner

        given = self.options.task_runner
        return given if isinstance(given, TaskRunner) else ThreadPoolTaskRunner()

    @property
    def should_validate_parameters(self) -> bool:
        """Whether parameters are checked and converted before the function is called."""
        return self.options.validate_parameters

    @property
    def parameters(self) -> ParameterSchema:
        """The JSON Schema of the parameters."""
        if self._parameters is None:
            from embedded_orch.engine.parameter_schema import parameter_schema

            self._parameters = parameter_schema(self.fn, self._signature)
        return self._parameters

    def validate_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as the function would get them: converted, with defaults filled in.

        Raises:
            ParameterTypeError: some are missing, or are not and cannot become what the annotations
                say; the message names each.
            ParameterBindError: one of them is none of the function's.
        """
        return self.spec.parameters.validated(parameters)

    validate = validate_parameters

    def serialize_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as JSON holds them; one that it cannot hold becomes ``<its type>``."""
        from embedded_orch.engine.parameter_schema import as_json

        return as_json(parameters)

    @property
    def spec(self) -> FlowSpec:
        """What the engine knows of it."""
        if self._unbound is not None:
            spec: FlowSpec = self._unbound.spec
            return spec
        if self._spec is None:
            from embedded_orch.engine.specs import FlowSpec

            self._spec = FlowSpec(
                self.fn,
                name=self.name,
                signature=self._signature,
                is_async=self.is_async,
                options=self.options,
                decorated=self,
            )
        return self._spec

    def __get__(self, instance: object, owner: type | None = None) -> Flow[..., R]:
        """The same flow, bound to its object or class where it is a method."""
        bound: Flow[..., R] = self._bound_to(instance, owner)
        return bound

    def _called(self, arguments: Mapping[str, Any], wait_for: object) -> Steps[State]:
        current_flow_run, current, call_flow = _engine_parts()
        caller = current_flow_run()
        if caller is None:
            return call_flow(current().engine, self.spec, arguments, wait_for)
        from embedded_orch.engine.contexts import current_task_run
        from embedded_orch.engine.subflow import subflow_steps

        parent = current_task_run()
        return subflow_steps(self.spec, arguments, caller=caller, parent=parent, wait_for=wait_for)

    def resume(
        self,
        run_id: UUID | str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        on_change: OnChange | None = None,
        match: Match | None = None,
        rerun_from: Task[..., Any] | Flow[..., Any] | UUID | str | None = None,
    ) -> R:
        """Continue a run where it stopped: tasks that completed are not run again.

        The function is called again; a task call that has a completed record returns what is
        recorded. A call is recognised by its task, its inputs, the task run that made it, and, of
        equal ones, by the order. What the code no longer asks for, or asks for by changed code, is
        told once, in the log of the run.

        Args:
            run_id: the run: Crashed, Failed, Cancelled or Paused, or left by a process that died.
                A Completed one returns its stored value, and nothing runs. Without an id, the
                newest unfinished run of this flow with equal ``parameters`` is continued, or one
                is started if there is none.
            parameters: with an id, values for those parameters that could not be stored; without,
                all that the flow is called with.
            on_change: "keep": finished results stand, whatever has changed; "strict": the run stops
                with ``RunChanged`` before anything runs that is not as it was recorded. What the
                flow says when not given.
            match: "inputs", as above, or "position": which call of its task by the same caller a
                call is, for inputs that never repeat. What the flow says when not given.
            rerun_from: a task, or a flow that was called: its first call, and all that completed
                after it in this run, is run again, of a Completed run too. Or one call, by the id
                or the name of its task run. What was recorded stays in the histories.

        Returns:
            What the call would have returned; a coroutine for an ``async def``.

        Raises:
            RunNotFound: no flow run has this id, or it has no such call on record.
            RunNotResumable: it runs in a living process, or is another flow's.
            RunChanged: it is strict, and has changed.
            ParametersNeeded: it was called with values that could not be stored.
            MissingResult: it completed, and its value was not kept.
            MissingContextError: it was called inside a flow run.
            Exception: what the function raised, once its retries are used up.
        """
        from embedded_orch.engine.contexts import current_flow_run

        if current_flow_run() is not None:
            raise errors.MissingContextError(
                f"{self.name}.resume() was called inside a flow run; resume runs from outside"
            )
        from embedded_orch.engine.checking import check_choices
        from embedded_orch.engine.records import Choices
        from embedded_orch.engine.resuming import resume_or_start

        check_choices(on_change, match)
        choices = Choices(on_change, match)
        first = _call_meant_by(rerun_from)
        orchestrator = _current()
        if run_id is not None:
            steps = self._resumption(
                orchestrator, run_id, parameters or {}, choices=choices, rerun_from=first
            )
        else:
            arguments = self._signature.bind((), parameters or {})
            steps = resume_or_start(
                orchestrator.engine, self.spec, arguments, choices=choices, rerun_from=first
            )
        return cast("R", self._run(steps))

    def resume_on(
        self, orchestrator: Orchestrator, run_id: UUID, *, is_automatic: bool = False
    ) -> State:
        """Resume a run of an open orchestrator, and wait for the state in which it ends, or rests.

        Raises:
            RunNotResumable: it runs in a living process, or is another flow's.
            ParametersNeeded: it was called with values that could not be stored.
        """
        steps = self._resumption(orchestrator, run_id, {}, is_automatic=is_automatic)
        ending = begun(steps, is_async=self.is_async, is_generator=False, return_state=True)
        if not self.is_async:
            return cast("State", ending)
        from anyio.from_thread import start_blocking_portal

        async def ended() -> State:
            return cast("State", await ending)

        with start_blocking_portal() as portal:
            return portal.call(ended)

    def _resumption(
        self,
        orchestrator: Orchestrator,
        run_id: UUID | str,
        given: Mapping[str, Any],
        *,
        choices: Choices | None = None,
        rerun_from: UUID | str | None = None,
        is_automatic: bool = False,
    ) -> Steps[State]:
        from embedded_orch.engine.resuming import resume_run
        from embedded_orch.filters import as_uuid

        found, bound = as_uuid(run_id, "flow run"), self._signature.bound_arguments
        return resume_run(
            orchestrator.engine,
            self.spec,
            found,
            given,
            bound=bound,
            choices=choices,
            rerun_from=rerun_from,
            is_automatic=is_automatic,
        )

    def _run(self, steps: Steps[State], return_state: bool = False) -> Any:
        return begun(
            steps,
            is_async=self.is_async,
            is_generator=self.is_generator,
            return_state=return_state,
        )


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(fn: classmethod[Any, P, R], /) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowArguments]) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Any = None, /, **options: Unpack[FlowArguments]) -> Any:
    """Make a function a flow.

    Args:
        fn: the function, a plain or an ``async def`` one.
        options: see below; each may be left out.

    Options:
        name: of the flow; the function's name with ``-`` for ``_`` when not given.
        flow_run_name: of its runs: a template such as ``"load-{path}"``, also over ``flow_run``
            and ``task_run``, or a function that returns the name and may take ``parameters``.
        description: for people; the docstring when not given.
        version: for people; an MD5 of the file that defines the function when not given.
        tags: of its runs.
        on_completion, on_failure, on_cancellation, on_crashed, on_running: lists of hooks, plain or
            async: ``hook(flow, flow_run, state)`` is called once the state is stored. One that
            raises is logged and changes nothing.
        retries: how often the function is called again when it raises; tasks that completed are
            not run again.
        retry_delay_seconds: to wait before each retry. The defaults of both are taken from
            ``EMBEDDED_ORCH_FLOW_DEFAULT_RETRIES`` and
            ``EMBEDDED_ORCH_FLOW_DEFAULT_RETRY_DELAY_SECONDS``.
        timeout_seconds: how long a call of the function may take; what takes longer is interrupted.
        validate_parameters: whether arguments are checked against the annotations and converted.
        on_crash: what becomes of a run whose process died: "fail" marks it Crashed, "resume"
            leaves it to the next process that calls ``orch.resume_crashed()``.
        max_resumes: how often in a row ``orch.resume_crashed()`` resumes a run without one more
            task that completed; then it is Crashed for good. By hand it can always be resumed.
        on_change: "keep" or "strict", and match: "inputs" or "position", for the runs of this flow
            that are resumed or retried; see ``Flow.resume``. Those of the flow that calls it when
            not given, else "keep" and "inputs".

    Raises:
        OptionNotSupported: an option that there is not, or that is not supported yet.
        ConfigurationError: a value that an option cannot have.
        SignatureError: a parameter has a reserved name.
    """
    if fn is None:
        return lambda function: Flow(function, **options)
    return Flow(fn, **options)


def _call_meant_by(rerun_from: object) -> UUID | str | None:
    """The id or name of a task run, or the module and qualified name of a task or flow."""
    from uuid import UUID

    if rerun_from is None or isinstance(rerun_from, UUID):
        return rerun_from
    if isinstance(rerun_from, str):
        try:
            return UUID(rerun_from)
        except ValueError:
            # No id: a name.
            return rerun_from
    spec = getattr(rerun_from, "spec", None)
    if spec is None:
        raise errors.ConfigurationError(
            f"rerun_from={rerun_from!r}: it is a task, a flow, or the id or name of a task run"
        )
    return str(spec.key)


@cache
def _engine_parts() -> tuple[
    Callable[[], FlowRunContext | None],
    Callable[[], Orchestrator],
    Callable[[Engine, FlowSpec, Mapping[str, Any], object], Steps[State]],
]:
    """What the first call imports, and the others find: an import statement looks each time."""
    from embedded_orch.engine.contexts import current_flow_run
    from embedded_orch.engine.flow_call import call_flow
    from embedded_orch.orchestrator import registry

    return current_flow_run, registry.current, call_flow


def _current() -> Orchestrator:
    from embedded_orch.orchestrator import registry

    return registry.current()

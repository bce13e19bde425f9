"""How the function of a run is called: at once, within a time limit, or item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.effects import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal
    from uuid import UUID

    from embedded_orch.engine.effects import Effect, Steps
    from embedded_orch.engine.specs import Spec
    from embedded_orch.engine.timeouts import Allowance

    Kind = Literal["Flow", "Task"]


def call_of(
    spec: Spec,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    kind: Kind,
    run_id: UUID,
) -> Call:
    """The effect that calls a function.

    Args:
        spec: of the flow or task.
        function: its own, or what calls that elsewhere.
        arguments: by parameter.
        kind: of the run.
        run_id: of the run.
    """
    args, kwargs = spec.signature.spread(arguments)
    allowance = _allowance(spec, kind, run_id)
    if allowance is None:
        return Call(function, args, kwargs)
    from embedded_orch.engine.timeouts import TimedCall

    return TimedCall(function, args, kwargs, allowance)


def iteration_of(
    spec: Spec,
    arguments: Mapping[str, Any],
    *,
    kind: Kind,
    run_id: UUID,
    wrapped: Callable[[Effect], Effect] | None = None,
) -> Steps[tuple[list[Any], str | None]]:
    """Run a generator function to its end.

    Args:
        spec: of the flow or task.
        arguments: by parameter.
        kind: of the run.
        run_id: of the run.
        wrapped: what the effects that run the function become, if anything.

    Returns:
        Its items, and why they are not to be kept as the result, if so.
    """
    from embedded_orch.engine.generators import iterate

    args, kwargs = spec.signature.spread(arguments)
    allowance = _allowance(spec, kind, run_id)
    return iterate(spec.function(*args, **kwargs), allowance, wrapped or _as_it_is)


def _allowance(spec: Spec, kind: Kind, run_id: UUID) -> Allowance | None:
    if spec.timeout_seconds is None:
        return None
    from embedded_orch.engine.timeouts import Allowance

    return Allowance(spec.timeout_seconds, kind, run_id)


def _as_it_is(effect: Effect) -> Effect:
    return effect

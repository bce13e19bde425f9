"""Templates for names of runs: over the parameters, and over what a run knows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.naming import check_template, fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedded_orch.engine.naming import Naming

_NAMES = ("deployment", "flow_run", "parameters", "task_run")


def checked_naming(option: str, naming: Naming | None, parameters: Sequence[str]) -> Naming | None:
    """What names the runs of a function, checked.

    Args:
        option: for messages.
        naming: a template, a function, or None.
        parameters: of the function; a template may name them, and besides ``flow_run``,
            ``task_run`` and ``deployment``, whose attributes are those of
            :mod:`embedded_orch.runtime`, and ``parameters``, all of them as a dict.

    Raises:
        ConfigurationError: a template names something else, or is none.
    """
    check_template(option, naming, (*parameters, *_NAMES))
    if not isinstance(naming, str) or fields_of(naming) <= {*parameters}:
        return naming
    return _over_runtime(naming)


def _over_runtime(template: str) -> Naming:
    def name(parameters: Mapping[str, Any]) -> str:
        from embedded_orch import runtime

        facts = {
            "deployment": runtime.deployment,
            "flow_run": runtime.flow_run,
            "parameters": parameters,
            "task_run": runtime.task_run,
        }
        return template.format(**{**facts, **parameters})

    return name

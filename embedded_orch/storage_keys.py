"""``result_storage_key``: where a task's result is put, which is also how it is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.cache_policies import CachePolicy
from embedded_orch.engine.naming import chosen_name
from embedded_orch.filesystems import check_path
from embedded_orch.run_names import checked_naming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.context import TaskRunContext
    from embedded_orch.engine.options import TaskOptions


class StorageKey(CachePolicy):
    """Keys that are paths in the storage of the results, by a template.

    Args:
        template: over the parameters, and over ``parameters``, ``flow_run``, ``task_run`` and
            ``deployment``.
        names: of the parameters.
        beside: a policy whose other settings hold for it; its keys are not used.

    Raises:
        ConfigurationError: the template names something else, or is none.
    """

    names_paths = True

    def __init__(
        self, template: str, names: Sequence[str], *, beside: CachePolicy | None = None
    ) -> None:
        super().__init__(
            key_storage=None if beside is None else beside.key_storage,
            isolation_level=None if beside is None else beside.isolation_level,
            lock_manager=None if beside is None else beside.lock_manager,
        )
        self.template = template
        self._naming = checked_naming("result_storage_key", template, names)

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The path.

        Raises:
            ConfigurationError: it would lead out of the storage, or is none.
            Exception: what the values raised when they were formatted.
        """
        assert self._naming is not None, "it was given"
        path = chosen_name("result_storage_key", self._naming, inputs)
        return check_path(path, what="result_storage_key")


def storage_key_of(
    options: TaskOptions, names: Sequence[str], policy: CachePolicy | None
) -> StorageKey | None:
    """The policy of a task with ``result_storage_key``; None when its results are not stored."""
    if options.persist_result is False:
        return None
    assert options.result_storage_key is not None, "it was given"
    return StorageKey(options.result_storage_key, names, beside=policy)

"""``get_client()``: reading runs, making runs and setting states as Prefect's client does.

There is no server and no connection: the client works on the orchestrator that a flow called here
would use. Each operation is written once, in :class:`SyncPrefectClient`; the asynchronous client
hands the same operation to a thread and awaits it.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from embedded_orch.client.synchronous import SyncPrefectClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from embedded_orch.orchestrator import Orchestrator

__all__ = ["PrefectClient", "SyncPrefectClient", "get_client"]

P = ParamSpec("P")
R = TypeVar("R")


class _HandedOver(Generic[P, R]):
    """An operation of the synchronous client as a method of the asynchronous one."""

    def __init__(self, operation: Callable[Concatenate[SyncPrefectClient, P], R]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    def __get__(
        self, client: PrefectClient, owner: type[PrefectClient]
    ) -> Callable[P, Awaitable[R]]:
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            import anyio.to_thread

            return await anyio.to_thread.run_sync(
                lambda: self._operation(client.synchronous, *args, **kwargs)
            )

        return call


class PrefectClient:
    """:class:`SyncPrefectClient` for asynchronous code, on asyncio and trio.

    Args:
        orchestrator: whose runs.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.synchronous = SyncPrefectClient(orchestrator)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """There is nothing to close: the orchestrator stays open."""

    api_healthcheck = _HandedOver(SyncPrefectClient.api_healthcheck)
    create_flow = _HandedOver(SyncPrefectClient.create_flow)
    create_flow_from_name = _HandedOver(SyncPrefectClient.create_flow_from_name)
    read_flow = _HandedOver(SyncPrefectClient.read_flow)
    read_flow_by_name = _HandedOver(SyncPrefectClient.read_flow_by_name)
    read_flows = _HandedOver(SyncPrefectClient.read_flows)
    create_flow_run = _HandedOver(SyncPrefectClient.create_flow_run)
    read_flow_run = _HandedOver(SyncPrefectClient.read_flow_run)
    read_flow_runs = _HandedOver(SyncPrefectClient.read_flow_runs)
    count_flow_runs = _HandedOver(SyncPrefectClient.count_flow_runs)
    set_flow_run_state = _HandedOver(SyncPrefectClient.set_flow_run_state)
    set_task_run_state = _HandedOver(SyncPrefectClient.set_task_run_state)
    read_flow_run_states = _HandedOver(SyncPrefectClient.read_flow_run_states)
    create_task_run = _HandedOver(SyncPrefectClient.create_task_run)
    read_task_run = _HandedOver(SyncPrefectClient.read_task_run)
    read_task_runs = _HandedOver(SyncPrefectClient.read_task_runs)
    read_task_run_states = _HandedOver(SyncPrefectClient.read_task_run_states)
    read_logs = _HandedOver(SyncPrefectClient.read_logs)
    read_artifacts = _HandedOver(SyncPrefectClient.read_artifacts)
    read_latest_artifacts = _HandedOver(SyncPrefectClient.read_latest_artifacts)
    delete_artifact = _HandedOver(SyncPrefectClient.delete_artifact)
    read_variables = _HandedOver(SyncPrefectClient.read_variables)
    read_variable_by_name = _HandedOver(SyncPrefectClient.read_variable_by_name)
    delete_variable_by_name = _HandedOver(SyncPrefectClient.delete_variable_by_name)
    resume_flow_run = _HandedOver(SyncPrefectClient.resume_flow_run)
    create_flow_run_input = _HandedOver(SyncPrefectClient.create_flow_run_input)
    read_flow_run_input = _HandedOver(SyncPrefectClient.read_flow_run_input)
    filter_flow_run_input = _HandedOver(SyncPrefectClient.filter_flow_run_input)
    delete_flow_run_input = _HandedOver(SyncPrefectClient.delete_flow_run_input)

    def __repr__(self) -> str:
        return repr(self.synchronous).replace("SyncPrefectClient", "PrefectClient")


@overload
def get_client(
    httpx_settings: Mapping[str, Any] | None = None, sync_client: Literal[False] = False
) -> PrefectClient: ...
@overload
def get_client(
    httpx_settings: Mapping[str, Any] | None = None, *, sync_client: Literal[True]
) -> SyncPrefectClient: ...
def get_client(
    httpx_settings: Mapping[str, Any] | None = None,  # noqa: ARG001 - as Prefect's takes it
    sync_client: bool = False,
) -> PrefectClient | SyncPrefectClient:
    """A client of the orchestrator that a flow called here would use.

    Use it with ``async with``, or ``with`` for a synchronous one, as with Prefect's.

    Args:
        httpx_settings: taken for the sake of programs that give it; there is no HTTP.
        sync_client: whether it is called without ``await``.
    """
    from embedded_orch.orchestrator import registry

    orchestrator = registry.current()
    return SyncPrefectClient(orchestrator) if sync_client else PrefectClient(orchestrator)

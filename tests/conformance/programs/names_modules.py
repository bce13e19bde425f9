"""Modules where programs look for things."""

from embedded_orch.client.orchestration import get_client
from embedded_orch.exceptions import MissingContextError, ParameterTypeError, PrefectException
from embedded_orch.futures import PrefectFuture, as_completed, wait
from embedded_orch.states import Completed, Failed
from embedded_orch.task_runners import ConcurrentTaskRunner, ThreadPoolTaskRunner
from embedded_orch.tasks import exponential_backoff
from embedded_orch.utilities.annotations import allow_failure, quote, unmapped

assert issubclass(MissingContextError, PrefectException)
assert issubclass(ParameterTypeError, PrefectException)
assert all((get_client, PrefectFuture, as_completed, wait, Completed, Failed, ConcurrentTaskRunner))
assert all((ThreadPoolTaskRunner, exponential_backoff, allow_failure, quote, unmapped))

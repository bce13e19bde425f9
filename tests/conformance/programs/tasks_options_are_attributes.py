"""What a task was made with can be read from it."""

from embedded_orch import task


@task(name="Load it", tags=["io"], retries=2, retry_delay_seconds=3, version="1.2")
def load():
    """Loads."""


assert (load.name, load.tags, load.retries, load.retry_delay_seconds) == ("Load it", {"io"}, 2, 3)
assert (load.version, load.description) == ("1.2", "Loads.")
assert load.fn() is None

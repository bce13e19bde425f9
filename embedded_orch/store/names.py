"""What flows, deployments, pools and queues may be called."""

from __future__ import annotations

from embedded_orch.errors import ConfigurationError

_FORBIDDEN = "/%&<>"


def check_name(kind: str, name: str) -> None:
    """Refuse a name that Prefect's rules do not allow.

    Args:
        kind: what is named, for the message: ``work pool``.
        name: its name.

    Raises:
        ConfigurationError: the name is empty, or contains one of ``/ % & < >``.
    """
    if not name:
        raise ConfigurationError(f"a {kind} needs a name")
    found = sorted(set(name) & set(_FORBIDDEN))
    if found:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a {kind}: it contains {' '.join(found)}; leave out "
            f"{' '.join(_FORBIDDEN)}"
        )

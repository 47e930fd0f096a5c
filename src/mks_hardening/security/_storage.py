"""Storage argument of the limiters: memory of the process, or Redis."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.checks import boolean, namespace_of, offers, whole_number
from mks_hardening._core.durations import seconds

__all__ = ["MEMORY", "is_redis"]

MEMORY: Final = "memory://"


def is_redis(
    storage: object, processes: int, namespace: str, store_budget: float, *, allow_plaintext: bool
) -> bool:
    """Return whether the storage is Redis, after a check of all arguments.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range.
    """
    # Checked for memory too, which uses none of them: an error must show up in development, not only in
    # production.
    namespace_of(namespace)
    whole_number(processes, parameter="processes", minimum=1, maximum=100_000)
    seconds(store_budget, parameter="store_budget", allow_zero=False)
    boolean(allow_plaintext, parameter="allow_plaintext")
    if not isinstance(storage, str) and not hasattr(
        storage, "acall"
    ):  # our own client has no execute_command
        offers(
            storage, "execute_command", parameter="storage", kind="memory://, a Redis URL or a Redis client"
        )
    return storage != MEMORY

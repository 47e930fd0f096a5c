"""Where a limiter counts: in this process, or in Redis."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.checks import flag, namespace_of, offers, whole_number
from mks_hardening._core.durations import seconds

__all__ = ["MEMORY", "is_redis"]

MEMORY: Final = "memory://"


def is_redis(
    storage: object, processes: int, namespace: str, store_budget: float, *, allow_plaintext: bool
) -> bool:
    """Whether it is not in memory; all are checked, so that none is wrong only in production.

    Raises:
        ConfigurationError: a value of another kind, or out of its range.
    """
    # In memory too, where none of them is used: a mistake must be found on a laptop.
    namespace_of(namespace)
    whole_number(processes, parameter="processes", minimum=1, maximum=100_000)
    seconds(store_budget, parameter="store_budget", allow_zero=False)
    flag(allow_plaintext, parameter="allow_plaintext")
    if not isinstance(storage, str) and not hasattr(
        storage, "acall"
    ):  # a client of ours has no execute_command
        offers(
            storage, "execute_command", parameter="storage", kind="memory://, a Redis URL or a Redis client"
        )
    return storage != MEMORY

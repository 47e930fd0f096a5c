"""Alert policy: deduplication, retries, rate and queue size."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Self

from mks_hardening._core.checks import boolean, number, offers, whole_number
from mks_hardening._core.durations import seconds

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.protocols import RedisLike

__all__ = ["AlertPolicy"]


class _Fields(NamedTuple):
    dedup_window: float
    digest: bool
    max_queue: int
    retries: int
    backoff: float
    backoff_max: float
    rate: float
    shared_store: str | RedisLike | RedisClient | None


class AlertPolicy(_Fields):
    """Policy of alerts: deduplication, retries, rate and queue size.

    Args:
        dedup_window: seconds in which repetitions of an alert are counted instead of sent; 0 sends each one.
        digest: report the number of repetitions when their window ends; otherwise only the next alert includes it.
        max_queue: maximum number of queued alerts; more are dropped and counted.
        retries: attempts after the first one, for temporary errors.
        backoff: seconds before the first retry; doubled each time, up to ``backoff_max``, with jitter.
        backoff_max: maximum pause between two attempts in seconds.
        rate: messages per second to the destination, after a burst of three.
        shared_store: Redis (URL or client) through which the processes of an application coordinate what was sent.

    Raises:
        ConfigurationError: a value is out of range.
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        dedup_window: float | timedelta = 300,
        digest: bool = True,
        max_queue: int = 1000,
        retries: int = 5,
        backoff: float | timedelta = 0.5,
        backoff_max: float | timedelta = 60,
        rate: float = 1.0,
        shared_store: str | RedisLike | RedisClient | None = None,
    ) -> Self:
        """Validate and convert the values; the URL of a shared store is parsed when the handler is created."""
        if not (shared_store is None or isinstance(shared_store, str) or hasattr(shared_store, "acall")):
            offers(  # a RedisClient, checked above, has no execute_command
                shared_store,
                "execute_command",
                parameter="shared_store",
                kind="a Redis URL, a RedisClient or a client with execute_command",
            )
        return super().__new__(
            cls,
            dedup_window=seconds(dedup_window, parameter="dedup_window"),
            digest=boolean(digest, parameter="digest"),
            max_queue=whole_number(max_queue, parameter="max_queue", minimum=1),
            retries=whole_number(retries, parameter="retries", minimum=0),
            backoff=seconds(backoff, parameter="backoff"),
            backoff_max=seconds(backoff_max, parameter="backoff_max"),
            rate=number(rate, parameter="rate", minimum=0, above=True),
            shared_store=shared_store,
        )

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, object]]:
        return (), self._asdict()

    def __repr__(self) -> str:
        # Without the shared store, whose URL may contain a password.
        shown = ", ".join(
            f"{name}={value!r}" for name, value in zip(self._fields[:-1], self[:-1], strict=True)
        )
        return f"AlertPolicy({shown}, shared_store={'...' if self.shared_store else None})"

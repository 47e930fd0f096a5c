"""The result of a purge."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PurgeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """The result of a purge; true only if every item was purged.

    Attributes:
        ok: whether everything was purged.
        done: the purged items (``*`` for everything).
        failed: the items that were not purged; they can be passed again.
        errors: error messages of the service, one for each kind of failure.
        retry_after: seconds after which the failed items may be passed again: the value the service asked for, or a
            default if it was busy or unreachable. ``None`` if nothing failed, or if a retry would be refused again:
            then the token, the zone or an item has to be corrected first.
    """

    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[str, ...]
    retry_after: float | None = None

    def __bool__(self) -> bool:
        return self.ok

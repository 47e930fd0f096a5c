"""What a purge did."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PurgeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """What a purge did; true only when all of it was done.

    Attributes:
        ok: whether everything was purged.
        done: the items that are purged (``*`` for everything).
        failed: the items that are not, and can be given again.
        errors: what the service said, one text for each kind of failure.
        retry_after: seconds after which what failed may be given again: what the service asked for, or a default
            where it was busy or could not be reached. ``None`` where nothing failed, or where the service refused
            and will again: the token, the zone or an item has to be mended first.
    """

    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[str, ...]
    retry_after: float | None = None

    def __bool__(self) -> bool:
        return self.ok

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
    """

    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok

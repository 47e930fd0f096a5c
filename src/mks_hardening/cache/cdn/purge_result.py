"""The result of a purge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from mks_hardening.cache.cdn.purge_item import PurgeItem

__all__ = ["PurgeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """The result of a purge; true unless an item failed.

    Attributes:
        ok: whether nothing failed.
        done: the purged items (``*`` for everything).
        failed: the items that were not purged; they can be passed again.
        errors: error messages of the service, one for each kind of failure.
        retry_after: seconds after which the failed items may be passed again: the value the service asked for, or a
            default if it was busy or unreachable. ``None`` if nothing failed, or if a retry would be refused again:
            then the token, the zone or an item has to be corrected first.
        failed_items: the failed items with their kinds and header fields, for ``purge_items``.
        queued: the items that a ``PurgeQueue`` purges soon.
    """

    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[str, ...]
    retry_after: float | None = None
    failed_items: tuple[PurgeItem, ...] = ()
    queued: tuple[str, ...] = ()

    @classmethod
    def of_items(
        cls,
        *,
        done: Iterable[PurgeItem] = (),
        failed: Iterable[PurgeItem] = (),
        errors: Iterable[str] = (),
        retry_after: float | None = None,
        queued: Iterable[PurgeItem] = (),
    ) -> Self:
        """Return the result for items; the arguments are the attributes of the same names."""
        failed_items = tuple(failed)
        return cls(
            ok=not failed_items,
            done=tuple(item.value for item in done),
            failed=tuple(item.value for item in failed_items),
            errors=tuple(errors),
            retry_after=retry_after,
            failed_items=failed_items,
            queued=tuple(item.value for item in queued),
        )

    def __bool__(self) -> bool:
        return self.ok

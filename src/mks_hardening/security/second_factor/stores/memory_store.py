"""Two-factor store in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

import threading
from bisect import bisect_right

from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.protocols import StoredFactor

__all__ = ["MemoryTwoFactorStore"]


class MemoryTwoFactorStore(Closing):
    """Store second factors in memory until the process ends; not shared between processes."""

    def __init__(self) -> None:
        self.reset_after_fork()
        self._records: dict[str, StoredFactor] = {}
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: one held by another thread at the time of a fork stays held in the child."""
        self._lock = threading.RLock()

    def load(self, user_id: str, /) -> StoredFactor | None:
        """Return the record of a user, or ``None``."""
        # Without the lock: one dict lookup is atomic, and the compare-and-set detects an outdated record.
        return self._records.get(user_id)

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write or remove a record if its version is still the expected one."""
        with self._lock:
            present = self._records.get(user_id)
            found = None if present is None else present.version
            # A retry after a lost response: the change is already in place.
            if found == version or (data is None and found is None):
                return True
            if found != expected:
                return False
            if data is None:
                del self._records[user_id]
            else:
                self._records[user_id] = StoredFactor(version, data)
            return True

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """Return user ids in order."""
        # Sort a copy: sorting a dict that another thread writes to raises RuntimeError.
        ordered = sorted(self._records.copy())
        start = 0 if cursor is None else bisect_right(ordered, cursor)
        page = ordered[start : start + limit]
        return page, page[-1] if start + limit < len(ordered) else None

    def count(self) -> int:
        """Return the number of users with a record."""
        return len(self._records)

    async def aload(self, user_id: str, /) -> StoredFactor | None:
        """``load`` for asyncio."""
        return self.load(user_id)

    async def areplace(
        self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str
    ) -> bool:
        """``replace`` for asyncio."""
        return self.replace(user_id, data, expected=expected, version=version)

    async def ascan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """``scan`` for asyncio."""
        return self.scan(cursor, limit=limit)

    def ping(self) -> bool:
        """Return true."""
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def __repr__(self) -> str:
        return f"MemoryTwoFactorStore({len(self._records)} users)"

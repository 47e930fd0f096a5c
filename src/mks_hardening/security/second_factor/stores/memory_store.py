"""Two-factor store in the memory of one process, for tests and single-process tools."""

from __future__ import annotations

from bisect import bisect_right

from mks_hardening.protocols import StoredFactor
from mks_hardening.security._memory_records import MemoryRecords

__all__ = ["MemoryTwoFactorStore"]


class MemoryTwoFactorStore(MemoryRecords):
    """Store second factors in memory until the process ends; not shared between processes."""

    def __init__(self) -> None:
        super().__init__()

    def load(self, user_id: str, /) -> StoredFactor | None:
        """Return the record of a user, or ``None``."""
        found = self._load_record(user_id)
        return None if found is None else StoredFactor(*found)

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write or remove a record if its version is still the expected one."""
        return self._replace_record(user_id, data, expected, version)

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

    def __repr__(self) -> str:
        return f"MemoryTwoFactorStore({len(self._records)} users)"

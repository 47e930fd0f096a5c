"""Base class for objects with resources: ``close()`` releases them, and ``with`` calls it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """Context manager that calls ``close()``, which must be idempotent."""

    __slots__ = ()

    def close(self) -> None:
        """Release the resources; idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

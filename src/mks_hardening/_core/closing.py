"""Objects that hold something open: ``close()`` gives it back, and ``with`` calls it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """A context manager over ``close()``, which must be harmless when called twice."""

    __slots__ = ()

    def close(self) -> None:
        """Give back what is held; harmless when called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

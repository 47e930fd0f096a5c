"""The turn of an outgoing call, as returned by ``RateLimiter.pace``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op, arun, run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Turn"]


class Turn:
    """The turn of a paced call: ``await`` it, or call ``wait``, and then make the call.

    Both return the seconds waited. A turn that is never waited for paces nothing and issues a ``ResourceWarning``.
    """

    __slots__ = ("_group", "_operation", "_waited")

    def __init__(self, group: str, operation: Callable[[], Op[float]]) -> None:
        self._group = group
        self._operation = operation
        self._waited = False

    def wait(self) -> float:
        """Wait for the turn in this thread.

        Raises:
            PaceTimeoutError: the turn would come too late; raised without waiting.
            BackendUnavailableError: the storage did not respond, and the policy of the group is ``closed``.
        """
        self._waited = True
        return run(self._operation())

    def __await__(self) -> Generator[object, None, float]:
        """``wait`` on the running event loop."""
        self._waited = True
        return arun(self._operation()).__await__()

    def __del__(self) -> None:
        if not self._waited:
            warnings.warn(
                f"a turn in {self._group!r} was never awaited: call wait() or await it",
                ResourceWarning,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"Turn({self._group!r})"

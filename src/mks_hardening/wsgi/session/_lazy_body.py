"""Response bodies of applications that call ``start_response`` only when the first chunk is requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mks_hardening._edge.session.session_handle import SessionHandle

__all__ = ["LazyBody"]


class LazyBody:
    """Body of an application that calls ``start_response`` only when its first chunk is requested.

    Args:
        result: iterable that the application returned.
        handle: session of the request.
        without_store: produces the response if the store is unavailable.
    """

    __slots__ = ("_close", "_handle", "_result", "_step", "_without_store")

    def __init__(
        self,
        result: Iterable[bytes],
        handle: SessionHandle,
        without_store: Callable[[BackendUnavailableError], list[bytes]],
    ) -> None:
        self._result = result
        self._step: Callable[[], bytes] | None = None
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._handle = handle
        self._without_store = without_store

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._step is None:
                self._step = iter(self._result).__next__
            return self._step()
        except BackendUnavailableError as error:
            if self._handle.head_given:
                raise
            self._step = iter(self._without_store(error)).__next__
            return self._step()

    def close(self) -> None:
        """Close the application's body, at most once."""
        close, self._close = self._close, None
        if close is not None:
            close()

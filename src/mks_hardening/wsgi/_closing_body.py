"""Bodies of responses with an action at their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mks_hardening.wsgi.request_log._server_file import is_server_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["with_close"]


def with_close(
    result: Iterable[bytes], environ: WSGIEnvironment, close: Callable[[], None]
) -> Iterable[bytes]:
    """Return the body of a response, with a function that is called when the server closes it."""
    if is_server_file(result, environ):
        # The server sends the file itself only if it gets its own object.
        inner: Callable[[], object] | None = getattr(result, "close", None)
        try:
            result.close = _after(inner, close)  # type: ignore[attr-defined]  # it is the server's class
        except AttributeError:
            pass
        else:
            return result
    body = _SizedBody if hasattr(result, "__len__") else _ClosingBody
    return body(result, close)


def _after(inner: Callable[[], object] | None, close: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        try:
            if inner is not None:
                inner()
        finally:
            close()

    return both


class _ClosingBody:
    """The body of a response; calls a function when the server closes it."""

    __slots__ = ("_close", "_result")

    def __init__(self, result: Iterable[bytes], close: Callable[[], None]) -> None:
        self._result = result
        inner: Any = getattr(result, "close", None)
        self._close = _after(inner, close)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._result)

    def close(self) -> None:
        """Close the body."""
        self._close()


class _SizedBody(_ClosingBody):
    """A body with a known number of chunks; servers derive a Content-Length if it is one."""

    __slots__ = ()

    def __len__(self) -> int:
        size: Any = self._result
        return len(size)

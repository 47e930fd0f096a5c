"""Responses of an application that a refusal may replace until their first byte is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.web.wsgi_head import BufferedHead
from mks_hardening.wsgi.request_log._server_file import is_server_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["ReplaceableHead", "replaceable_response"]

# Iterating these types runs no code of the application, so nothing is left that could fail.
_PLAIN: Final = (list, tuple)


class ReplaceableHead(BufferedHead):
    """Head of the application's response; subclasses decide whether a refusal replaces the response."""

    def must_refuse(self, *, failed: bool) -> bool:
        """Return whether the response is replaced, which PEP 3333 allows until the first byte of the body.

        Args:
            failed: whether the application has raised an exception.
        """
        raise NotImplementedError


def replaceable_response(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    head: ReplaceableHead,
    refusal: Callable[[], Iterable[bytes]],
) -> Iterable[bytes]:
    """Call an application and return the body of its response, or of the refusal.

    Args:
        app: the application.
        environ: environ of the request.
        head: stores the head of the response and decides.
        refusal: sends the head of the refusal to the server, and returns the body.
    """
    try:
        result = app(environ, head.start_response)
    except Exception:
        if head.must_refuse(failed=True):
            return refusal()
        raise
    is_decided = type(result) in _PLAIN or is_server_file(result, environ)
    body = _SizedBody(result) if hasattr(result, "__len__") else _Body(result)
    try:
        if not is_decided:
            body.read_first()
        is_refused = head.must_refuse(failed=False)
    except BaseException as error:
        body.close()
        if isinstance(error, Exception) and head.must_refuse(failed=True):
            return refusal()
        raise
    if is_refused:
        body.close()
        return refusal()
    head.send_head()
    return result if is_decided else body


class _Body:
    """Body of the application's response, of which the first chunk is read before the server has the head.

    Until then the response can be replaced; and servers such as Granian take the head before the body.
    """

    __slots__ = ("_chunks", "_close", "_result")

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._chunks: Iterator[bytes] = iter(())

    def read_first(self) -> None:
        """Read chunks until one is not empty; an empty one sends nothing."""
        chunks = iter(self._result)
        first = next(filter(None, chunks), None)
        self._chunks = chain((first,), chunks) if first else iter(())

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Close the application's body, once."""
        close, self._close = self._close, None
        if close is not None:
            close()


class _SizedBody(_Body):
    """A body with a known number of chunks; servers derive a Content-Length if it is one."""

    __slots__ = ()

    def __len__(self) -> int:
        size: Any = self._result
        return len(size)

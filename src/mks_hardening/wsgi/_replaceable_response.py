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
    if head.must_refuse(failed=False):
        close: Callable[[], object] | None = getattr(result, "close", None)
        if close is not None:
            close()
        return refusal()
    if type(result) in _PLAIN or is_server_file(result, environ):
        head.send_head()
        return result
    body = _SizedBody if hasattr(result, "__len__") else _Body
    return body(result, head, refusal)


class _Body:
    """Body of the application's response, or of the refusal if that replaces it before the first byte."""

    __slots__ = ("_close", "_head", "_is_decided", "_refusal", "_result")

    def __init__(
        self, result: Iterable[bytes], head: ReplaceableHead, refusal: Callable[[], Iterable[bytes]]
    ) -> None:
        self._result = result
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._head = head
        self._refusal = refusal
        self._is_decided = False

    def __iter__(self) -> Iterator[bytes]:
        chunks: Iterator[bytes] = chain.from_iterable((self._result,))  # calls iter() with the first step
        chunk = b""
        try:
            for chunk in chunks:
                if chunk:  # an empty one sends nothing, so the response can still be replaced
                    break
            is_refused = self._head.must_refuse(failed=False)
        except Exception:
            self._is_decided = True
            is_refused = self._head.must_refuse(failed=True)
            if not is_refused:
                raise
        self._is_decided = True
        if is_refused:
            yield from self._refusal()
            return
        self._head.send_head()
        if chunk:
            yield chunk
            yield from chunks

    def close(self) -> None:
        """Close the application's body, once."""
        close, self._close = self._close, None
        if close is not None:
            close()
        if not self._is_decided:
            self._head.send_head()  # for a server that does not read the body, for example for HEAD


class _SizedBody(_Body):
    """A body with a known number of chunks; servers derive a Content-Length if it is one."""

    __slots__ = ()

    def __len__(self) -> int:
        size: Any = self._result
        return len(size)

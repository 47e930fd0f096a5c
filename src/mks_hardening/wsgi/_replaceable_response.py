"""Responses of an application that a refusal may replace until their first byte is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.web.wsgi_head import BufferedHead

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
    wrapper = environ.get("wsgi.file_wrapper")
    # The server sends a file itself only if it gets its own object.
    is_finished = type(result) in _PLAIN or (isinstance(wrapper, type) and isinstance(result, wrapper))
    if head.must_refuse(failed=False):
        close: Callable[[], object] | None = getattr(result, "close", None)
        if close is not None:
            close()
        return refusal()
    if is_finished:
        head.send_head()
        return result
    body = _SizedBody if hasattr(result, "__len__") else _Body
    return body(result, head, refusal)


class _Body:
    """Body of the application's response, or of the refusal if that replaces it before the first byte."""

    __slots__ = ("_chunks", "_close", "_head", "_is_decided", "_refusal", "_result")

    def __init__(
        self, result: Iterable[bytes], head: ReplaceableHead, refusal: Callable[[], Iterable[bytes]]
    ) -> None:
        self._result = result
        self._chunks: Iterator[bytes] = chain.from_iterable((result,))  # calls iter() with the first step
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._head = head
        self._refusal = refusal
        self._is_decided = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._is_decided:
            return next(self._chunks)
        head = self._head
        try:
            chunk = next(self._chunks)
            while not chunk:  # an empty chunk sends nothing, so the response can still be replaced
                chunk = next(self._chunks)
        except StopIteration:
            if not head.must_refuse(failed=False):
                self._is_decided = True
                head.send_head()
                raise
        except Exception:
            self._is_decided = True
            if not head.must_refuse(failed=True):
                raise
        else:
            if not head.must_refuse(failed=False):
                self._is_decided = True
                head.send_head()
                return chunk
        self._is_decided = True
        self._chunks = iter(self._refusal())
        return next(self._chunks)

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

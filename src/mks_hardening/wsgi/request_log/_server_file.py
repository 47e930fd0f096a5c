"""Files that the server sends itself: the body is not wrapped, and the bytes sent are read from the file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from mks_hardening.wsgi.request_log._exchange import Exchange

__all__ = ["FileBody", "is_server_file"]


class FileBody:
    """A file that the server may send itself (``sendfile``): not wrapped, only its ``close()`` is intercepted.

    The number of bytes sent is derived from the file's position, which ``read`` and ``socket.sendfile`` move.
    gunicorn restores the position after it has sent everything. Only then is the position unchanged without a
    pending exception.
    """

    __slots__ = ("_close", "_exchange", "_file", "_puts_back", "_result", "_start")

    def __init__(self, exchange: Exchange, result: Any) -> None:
        self._exchange = exchange
        self._result = result
        self._close: Callable[[], object] | None = getattr(result, "close", None)
        self._puts_back = hasattr(result, "filelike")  # gunicorn and wsgiref; waitress calls it "file"
        self._file: Any = result.filelike if self._puts_back else getattr(result, "file", None)
        self._start = _position(self._file)

    def attach(self) -> bool:
        """Replace ``close`` of the file wrapper; ``False`` if it does not allow that."""
        try:
            self._result.close = self.close
        except AttributeError:
            return False
        exchange = self._exchange
        if exchange.first_byte_at is None:
            exchange.first_byte_at = exchange._monotonic()  # noqa: SLF001 - as in ResponseBody
        return True

    def close(self) -> None:
        """Determine what was sent, close the file (once) and report the end."""
        close, self._close = self._close, None
        with contextlib.suppress(OSError):
            self._record_position()
        self._exchange.close(close)

    def _record_position(self) -> None:
        exchange, start, end = self._exchange, self._start, _position(self._file)
        if start is None or end is None:
            exchange.complete = True
            return
        size = _size(self._file) if self._puts_back else None
        if end == start and size is not None and sys.exc_info()[0] is None:
            end = size if exchange.declared is None else min(size, start + exchange.declared)
            exchange.complete = True
        else:
            exchange.complete = not self._file.read(1)
        exchange.sent += end - start


def _position(file: Any) -> int | None:
    try:
        return int(file.tell())
    except (AttributeError, OSError, ValueError):
        return None


def _size(file: Any) -> int | None:
    """Return the size of a file that ``sendfile`` can send; ``None`` for others."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError, ValueError):
        return None


def is_server_file(result: object, environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(result, wrapper)

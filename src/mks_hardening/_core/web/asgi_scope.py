"""Values of an ASGI scope, in the form in which the rules of the edge take them."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from mks_hardening._core.memo import Memo
from mks_hardening._core.process.context import request_var
from mks_hardening._core.web.environ_keys import ROUTE_KEY

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ReadOnlyScope

__all__ = [
    "REQUESTS",
    "HeaderReader",
    "current_route",
    "first_header",
    "header",
    "is_request",
    "method_of",
    "mount_of",
    "path_below_mount",
    "query_of",
    "raw_target",
    "route_of",
]

REQUESTS: Final = ("http", "websocket")
"""Types of scopes that middleware handles; everything else passes untouched."""
_name: Final = itemgetter(0)


def is_request(scope: ReadOnlyScope) -> bool:
    """Return whether the scope is an HTTP request or a WebSocket."""
    return scope["type"] in REQUESTS


def method_of(scope: ReadOnlyScope, *, websocket: str = "GET") -> str:
    """Return the method of a request, or ``websocket`` for a WebSocket, whatever the scope says there.

    A WebSocket has no method in ASGI, but is opened by GET; a server that sets one changes nothing.
    """
    if scope["type"] != "http":
        return websocket
    method: object = scope.get("method")
    return method if isinstance(method, str) else ""


def header(scope: ReadOnlyScope, name: bytes) -> str | None:
    """Return the value of a header field, several lines joined by commas; ``None`` without one.

    Args:
        scope: the scope.
        name: name of the field in lower case.
    """
    found: bytes | None = None
    length = len(name)
    for field, value in scope.get("headers") or ():
        # The length first: most names differ in it, and a comparison of numbers costs less than lower().
        if len(field) == length and field.lower() == name:
            found = value if found is None else found + _separator(name) + value
    return None if found is None else found.decode("latin-1")


def first_header(scope: ReadOnlyScope, name: bytes) -> str | None:
    """Return the first line of a header field, faster than ``header``; ``None`` without one.

    For fields that a request has once, where nothing depends on further lines.
    """
    value: bytes
    for field, value in scope.get("headers") or ():
        if field == name:
            return value.decode("latin-1")
    return header(scope, name)


class HeaderReader:
    """Reads the same few header fields of every request, faster than ``header`` reads two of them.

    Clients send the same fields with every request, so the positions are looked up by all names together.

    Args:
        names: names of the fields in lower case.
    """

    __slots__ = ("_missing", "_names", "_plans")

    def __init__(self, *names: bytes) -> None:
        self._names = names
        self._missing: list[str | None] = [None] * len(names)
        self._plans: Memo[tuple[bytes, ...], tuple[tuple[int, tuple[int, ...]], ...]] = Memo(
            self._plan, entries=1024, longest=4096
        )

    def read(self, scope: ReadOnlyScope) -> list[str | None]:
        """Return what ``header`` returns for each name."""
        headers = scope.get("headers") or ()
        values = self._missing.copy()
        for place, lines in self._plans[tuple(map(_name, headers))]:
            value: bytes = headers[lines[0]][1]
            if len(lines) > 1:
                value = _separator(self._names[place]).join(headers[line][1] for line in lines)
            values[place] = value.decode("latin-1")
        return values

    def _plan(self, names: tuple[bytes, ...]) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Return the place in the result, and the positions of the lines, of each field that is present."""
        lower = [name.lower() for name in names]
        found = (
            (place, tuple(line for line, name in enumerate(lower) if name == wanted))
            for place, wanted in enumerate(self._names)
        )
        return tuple(row for row in found if row[1])


def mount_of(scope: ReadOnlyScope) -> str:
    """Return the path under which the application is mounted, without a trailing slash, in Latin-1 (PEP 3333)."""
    root: str = scope.get("root_path") or ""
    return _latin1(root.rstrip("/"))


def path_below_mount(scope: ReadOnlyScope) -> str:
    """Return the path below ``root_path``, as the bytes of UTF-8 in Latin-1 (PEP 3333).

    ``path`` includes ``root_path`` since ASGI 2.5 of the specification; older servers omit it.
    """
    path: str = scope["path"]
    if not path.isascii():
        path = _as_latin1(scope, path)
    root: str = scope.get("root_path") or ""
    if root:
        mount = mount_of(scope)
        if path == mount or path.startswith(mount + "/"):
            return path[len(mount) :]
    return path


def query_of(scope: ReadOnlyScope) -> str:
    """Return the query string in Latin-1."""
    query: bytes = scope.get("query_string") or b""
    return query.decode("latin-1")


def raw_target(scope: ReadOnlyScope) -> str:
    """Return the path as sent by the client, or an empty text if the server does not provide it."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else ""


def route_of(scope: ReadOnlyScope) -> str | None:
    """Return the pattern that a framework has matched, where it leaves one in the scope (FastAPI, Litestar)."""
    path: object = getattr(scope.get("route"), "path", None) or scope.get("path_template")
    # Of the innermost application only, as in WSGI; the mounts around it are in the root path by now.
    return f"{(scope.get('root_path') or '').rstrip('/')}{path}" if isinstance(path, str) else None


def current_route() -> str:
    """Return the route of the request of this context, if its framework has told it by now; otherwise empty."""
    request = request_var.get()
    return request.get(ROUTE_KEY) or route_of(request) or ""


def _as_latin1(scope: ReadOnlyScope, path: str) -> str:
    # Servers replace bytes that are not UTF-8 by U+FFFD; the raw path still has them.
    raw: bytes | None = scope.get("raw_path") if "\ufffd" in path else None
    return _latin1(path) if raw is None else unquote_to_bytes(raw).decode("latin-1")


def _latin1(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def _separator(name: bytes) -> bytes:
    # HTTP/2 splits cookies into several lines (RFC 9113, 8.2.3).
    return b"; " if name == b"cookie" else b","

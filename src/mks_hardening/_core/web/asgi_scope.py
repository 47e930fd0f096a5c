"""Values of an ASGI scope, in the form in which the rules of the edge take them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["header", "headers_of", "is_request", "mount_of", "path_below_mount", "query_of", "raw_target"]


def is_request(scope: Mapping[str, Any]) -> bool:
    """Return whether the scope is an HTTP request or a WebSocket; everything else passes untouched."""
    return scope["type"] in ("http", "websocket")


def header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """Return the value of a header field, several lines joined by commas; ``None`` without one.

    Args:
        scope: the scope.
        name: name of the field in lower case.
    """
    found: bytes | None = None
    for field, value in scope["headers"]:
        if field == name or field.lower() == name:
            # HTTP/2 splits cookies into several lines (RFC 9113, 8.2.3).
            found = value if found is None else found + (b"; " if name == b"cookie" else b",") + value
    return None if found is None else found.decode("latin-1")


def headers_of(scope: Mapping[str, Any], *names: bytes) -> list[str | None]:
    """Return the values of several header fields, as ``header`` does."""
    return [header(scope, name) for name in names]


def mount_of(scope: Mapping[str, Any]) -> str:
    """Return the path under which the application is mounted, without a trailing slash, in Latin-1 (PEP 3333)."""
    root: str = scope.get("root_path") or ""
    return _latin1(root.rstrip("/"))


def path_below_mount(scope: Mapping[str, Any]) -> str:
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


def query_of(scope: Mapping[str, Any]) -> str:
    """Return the query string in Latin-1."""
    query: bytes = scope.get("query_string") or b""
    return query.decode("latin-1")


def raw_target(scope: Mapping[str, Any]) -> str:
    """Return the path as sent by the client, or an empty text if the server does not provide it."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else ""


def _as_latin1(scope: Mapping[str, Any], path: str) -> str:
    # Servers replace bytes that are not UTF-8 by U+FFFD; the raw path still has them.
    raw: bytes | None = scope.get("raw_path") if "\ufffd" in path else None
    return _latin1(path) if raw is None else unquote_to_bytes(raw).decode("latin-1")


def _latin1(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")

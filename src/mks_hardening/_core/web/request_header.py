"""Header fields of a request, from a WSGI environ or an ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mks_hardening._core.web.environ_keys import header_key

__all__ = ["request_header"]

# PEP 3333 keeps the names of CGI for these two.
_CGI_KEYS: Final = {"HTTP_CONTENT_TYPE": "CONTENT_TYPE", "HTTP_CONTENT_LENGTH": "CONTENT_LENGTH"}


def request_header(request: Mapping[str, Any], name: str) -> str | None:
    """Return the value of a header field, several lines joined by commas (RFC 9110, 5.3); ``None`` without one."""
    lines = request.get("headers")
    if lines is None or "REQUEST_METHOD" in request:
        key = header_key(name)
        value: str | None = request.get(_CGI_KEYS.get(key, key))
        return value
    wanted = name.lower().encode("latin-1")
    values = [value for field, value in lines if field.lower() == wanted]
    return b",".join(values).decode("latin-1") if values else None

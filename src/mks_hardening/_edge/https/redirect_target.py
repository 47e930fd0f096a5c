"""Redirect targets built from the WSGI environ, whose texts are bytes decoded as Latin-1 (PEP 3333)."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["request_target"]

# Everything RFC 3986 does not allow in a path or in a query. In a path, which the server has decoded, "%" is a
# literal character; in a query, which is passed on as sent, it begins an escape.
_NOT_IN_PATH = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_NOT_IN_QUERY = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]+")


def request_target(mount: str, path: str, query: str, *, sent: str = "") -> str:
    """Return path and query, ready to be appended to an authority; the result always begins with a slash.

    The query is kept as sent, except for bytes that are not allowed. So is the path if the server provides the raw
    request target: ``%2F`` in it is not a slash (RFC 3986, 2.2), but the two look the same once decoded.

    Args:
        mount: ``SCRIPT_NAME``.
        path: ``PATH_INFO``.
        query: ``QUERY_STRING``.
        sent: the raw request target from the server; ignored if it is a different path.
    """
    full = mount + path
    sent = sent.partition("?")[0].partition("#")[0]
    if sent.startswith("/") and unquote(sent, encoding="latin-1") == full:
        # Normalized as in RFC 3986, 6.2.2.1, like the escapes made here.
        target = _ESCAPE.sub(lambda found: found[0].upper(), _NOT_IN_QUERY.sub(_escape, sent))
    else:
        target = _NOT_IN_PATH.sub(_escape, full if full.startswith("/") else "/" + full)
    return f"{target}?{_NOT_IN_QUERY.sub(_escape, query)}" if query else target


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:  # a server that does not follow PEP 3333
        raw = text.encode("utf-8", "surrogatepass")
    return "%" + raw.hex("%").upper()

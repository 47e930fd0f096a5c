"""Redirect targets from what a WSGI server leaves of a request: bytes in Latin-1 text (PEP 3333)."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["request_target"]

# Everything RFC 3986 does not allow in a path, or in a query; "%" stands for itself in a path, where the server
# has decoded it, and for an escape in a query, which comes as it was sent.
_NOT_IN_PATH = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_NOT_IN_QUERY = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]+")


def request_target(mount: str, path: str, query: str, *, sent: str = "") -> str:
    """Path and query, ready to stand after an authority: always begins with a slash of its own.

    The query stays as it came, except for bytes that must not occur. So does the path where the server tells how it
    was sent: ``%2F`` in it is no slash (RFC 3986, 2.2), and cannot be told from one once it is decoded.

    Args:
        mount: ``SCRIPT_NAME``.
        path: ``PATH_INFO``.
        query: ``QUERY_STRING``.
        sent: the request target as the server received it; not believed where it is another path.
    """
    full = mount + path
    sent = sent.partition("?")[0].partition("#")[0]
    if sent.startswith("/") and unquote(sent, encoding="latin-1") == full:
        # In the one spelling of RFC 3986, 6.2.2.1, as the escapes that are made here.
        target = _ESCAPE.sub(lambda found: found[0].upper(), _NOT_IN_QUERY.sub(_escape, sent))
    else:
        target = _NOT_IN_PATH.sub(_escape, full if full.startswith("/") else "/" + full)
    return f"{target}?{_NOT_IN_QUERY.sub(_escape, query)}" if query else target


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:  # a server that does not keep to PEP 3333
        raw = text.encode("utf-8", "surrogatepass")
    return "%" + raw.hex("%").upper()

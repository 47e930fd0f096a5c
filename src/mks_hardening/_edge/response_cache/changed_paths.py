"""The paths whose stored responses an unsafe request makes invalid (RFC 9111, 4.4)."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin, urlsplit

from mks_hardening._edge.response_cache.cacheable_request import RequestHead
from mks_hardening._edge.response_cache.http_caching import Headers

__all__ = ["changed_paths"]


def changed_paths(head: RequestHead, status: int, headers: Headers) -> list[str]:
    """Return the paths that a successful response has changed: its own, and those in its Location fields.

    Args:
        head: the request.
        status: status code of the response.
        headers: header fields of the response.
    """
    if not 200 <= status < 400:
        return []
    path = head.mount + head.path
    found = {path: None}
    for name, value in headers:
        if name.lower() not in {"location", "content-location"}:
            continue
        try:
            place = urlsplit(urljoin(f"//{head.host}{quote(path, encoding='latin-1')}", value))
        except ValueError:  # not a URL
            continue
        if place.netloc.lower() == head.host.lower() and place.path:
            found[unquote(place.path, encoding="latin-1")] = None
    return [*found]

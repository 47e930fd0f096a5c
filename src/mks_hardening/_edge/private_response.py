"""Keeping personal responses out of shared caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers

__all__ = ["keep_private", "vary_by_cookie"]

_SHARED_ONLY: Final = frozenset({"public", "s-maxage", "proxy-revalidate"})
# Content delivery networks (RFC 9213) and nginx prefer these fields to Cache-Control.
_FOR_CDN: Final = frozenset({
    "akamai-cache-control", "cdn-cache-control", "cloudflare-cdn-cache-control", "edge-control",
    "fastly-cdn-cache-control", "netlify-cdn-cache-control", "surrogate-control", "vercel-cdn-cache-control",
    "x-accel-expires",
})  # fmt: skip


def keep_private(headers: Headers, *, default: str) -> None:
    """Make the response private in place, whatever the application allows shared caches to do.

    Args:
        headers: header fields of the response.
        default: ``Cache-Control`` for a response that has none, or one that allows shared caching.
    """
    directives = [
        directive.strip()
        for name, value in headers
        if name.lower() == "cache-control"
        for directive in value.split(",")
    ]
    # private="Set-Cookie" covers that field only (RFC 9111, 5.2.2.7); the rest of the response may be shared.
    names = {
        "" if name == "private" and argument else name
        for name, argument, _ in (directive.lower().partition("=") for directive in directives)
    }
    if not names & {"private", "no-store"} or names & _SHARED_ONLY:
        _without(headers, {"cache-control"})
        headers.append(("Cache-Control", "no-store" if "no-store" in names else default))
    _without(headers, _FOR_CDN)


def vary_by_cookie(headers: Headers) -> None:
    """Add ``Vary: Cookie`` in place, unless ``Vary`` already covers the cookies."""
    for name, value in headers:
        if name.lower() == "vary" and {"*", "cookie"} & {item.strip().lower() for item in value.split(",")}:
            return
    headers.append(("Vary", "Cookie"))


def _without(headers: Headers, names: frozenset[str] | set[str]) -> None:
    if not names.isdisjoint(name.lower() for name, _ in headers):
        headers[:] = [field for field in headers if field[0].lower() not in names]

"""Web origins (RFC 6454): scheme, host and port of a page."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mks_hardening._core.origin.hostname import DEFAULT_PORTS, authority, parse_host

__all__ = ["WebOrigin", "origin_of_url", "parse_origin"]

# No user info (@) and no backslash, which browsers and libraries interpret differently.
_URL: Final = re.compile(r"(https?)://([^/?#@\\\s]{1,300})(?=[/?#]|\Z)", re.IGNORECASE)


class WebOrigin(NamedTuple):
    """A normalized origin: host in lower case without a final dot, port ``None`` for the default of the scheme."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.scheme, self.host, self.port)}"

    @classmethod
    def of(cls, scheme: str, host: str, port: int | None) -> WebOrigin:
        """Return the origin of normalized values, without a default port."""
        return cls(scheme, host, None if port == DEFAULT_PORTS[scheme] else port)


def parse_origin(text: str) -> WebOrigin | None:
    """Parse an origin such as ``https://www.example.com``; ``None`` if it is malformed, ``null``, or has a path."""
    found = _URL.fullmatch(text)
    host = parse_host(found[2]) if found else None
    return None if found is None or host is None else WebOrigin.of(found[1].lower(), host.name, host.port)


def origin_of_url(url: str) -> str:
    """Return the origin at the start of a URL as sent; empty if there is none."""
    found = _URL.match(url)
    return found[0] if found else ""

"""Combine connection and proxy headers into one origin, and derive the values for the application."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from mks_hardening._core.origin.forwarding_headers import X_FORWARDED
from mks_hardening._core.origin.hostname import DEFAULT_PORTS, authority, parse_host, parse_port
from mks_hardening._core.origin.network_addresses import UNKNOWN, parse_address

__all__ = [
    "Family",
    "ForwardedValues",
    "PeerConnection",
    "RequestOrigin",
    "host_field",
    "resolve_origin",
    "rewritten_headers",
]

Family = Literal["x-forwarded", "forwarded"]

_SECURE_SCHEMES = frozenset({"https", "wss"})
# The prefix becomes SCRIPT_NAME and part of redirects: unreserved characters and no dot segments.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")


class RequestOrigin(NamedTuple):
    """Client of a request, and the URL parts that it used.

    Attributes:
        client_ip: normalized address of the client, or ``"unknown"`` if there is none.
        scheme: ``"http"`` or ``"https"`` as used by the client.
        host: requested host in lower case, without final dot and port, IPv6 in brackets; empty if the request has
            none or a malformed one.
        port: requested port.
        prefix: path under which the application is mounted, without a trailing slash.
        peer_trusted: whether the connection came from a trusted proxy.
    """

    client_ip: str
    scheme: str
    host: str
    port: int
    prefix: str
    peer_trusted: bool


class PeerConnection(NamedTuple):
    """Values that the server itself provides about a request, and the ``Host`` field of the peer."""

    peer: str | None = None
    scheme: str | None = None
    host: str | None = None
    prefix: str | None = None
    server_name: str | None = None
    server_port: str | None = None


class ForwardedValues(NamedTuple):
    """Values from trusted proxies; ``None`` for a missing value."""

    client: str | None = None
    scheme: str | None = None
    host: str | None = None
    port: str | None = None
    prefix: str | None = None


def resolve_origin(connection: PeerConnection, forwarded: ForwardedValues | None) -> RequestOrigin:
    """Return the origin; ``forwarded`` is ``None`` if the peer is not trusted."""
    known = forwarded or ForwardedValues()
    scheme = known.scheme if known.scheme is not None else connection.scheme or "http"
    scheme = "https" if scheme.lower() in _SECURE_SCHEMES else "http"
    host, written_port = _host(connection, known)
    return RequestOrigin(
        client_ip=known.client or _spelled(connection.peer or ""),
        scheme=scheme,
        host=host,
        port=parse_port(known.port or "") or written_port or DEFAULT_PORTS[scheme],
        prefix=_prefix(connection, known),
        peer_trusted=forwarded is not None,
    )


def _host(connection: PeerConnection, known: ForwardedValues) -> tuple[str, int | None]:
    text = known.host if known.host is not None else connection.host
    if text is None:  # HTTP/1.0 without Host: the server's own name (PEP 3333, URL reconstruction)
        text = f"{connection.server_name or ''}:{connection.server_port or ''}"
    return parse_host(text) or ("", None)


def _prefix(connection: PeerConnection, known: ForwardedValues) -> str:
    prefix = (known.prefix or "").rstrip("/")
    safe = len(prefix) <= 512 and _PREFIX.fullmatch(prefix) and not {".", ".."} & set(prefix.split("/"))
    return prefix if prefix and safe else (connection.prefix or "").rstrip("/")


def _spelled(peer: str) -> str:
    address = parse_address(peer)
    return UNKNOWN if address is None else str(address)


def rewritten_headers(family: Family, forwarded: ForwardedValues, origin: RequestOrigin) -> dict[str, str]:
    """Return the forwarding headers with the values of the determined origin."""
    if family == "forwarded":
        client = f'for="{_bracketed(forwarded.client)}";' if forwarded.client else ""
        return {"Forwarded": f'{client}proto={origin.scheme};host="{host_field(origin)}"'}
    values = (forwarded.client or "", origin.scheme, host_field(origin), str(origin.port), origin.prefix)
    return dict(zip(X_FORWARDED, values, strict=True))


def host_field(origin: RequestOrigin) -> str:
    """Return the value of a ``Host`` field for this origin."""
    return origin.host and authority(origin.scheme, origin.host, origin.port)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

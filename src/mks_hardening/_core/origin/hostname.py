"""Grammar of a ``Host`` field, and normalization of hosts.

Stricter than RFC 3986, which allows almost anything as a registered name: an accepted host can be used unchanged in
a URL, a header or a log line.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import NamedTuple

__all__ = ["DEFAULT_PORTS", "HostPort", "authority", "parse_host", "parse_port"]

DEFAULT_PORTS = {"http": 80, "https": 443}

_LONGEST = 262  # 253 for the name, a final dot, a colon and five digits, and some margin
# Underscores are not allowed in host names, but resolve inside clusters.
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class HostPort(NamedTuple):
    """A normalized host (lower case, no final dot, IPv6 in brackets) and the explicit port."""

    name: str
    port: int | None


def parse_host(text: str) -> HostPort | None:
    """Parse the value of a ``Host`` field; ``None`` if it is malformed."""
    if len(text) > _LONGEST or not text.isascii():
        return None
    if text.startswith("["):
        literal, bracket, rest = text[1:].partition("]")
        name = _ipv6(literal) if bracket else None
        colon, digits = rest[:1], rest[1:]
    else:
        name, colon, digits = text.partition(":")
        name = _name(name)
    if name is None or colon not in ("", ":"):
        return None
    # An empty port ("example.com:") is valid and means the default port (RFC 3986, 3.2.3).
    port = parse_port(digits) if digits else None
    return None if digits and port is None else HostPort(name, port)


def parse_port(digits: str) -> int | None:
    """Return a port from 1 to 65535 in ASCII digits, or ``None``; ``str.isdigit`` alone would accept ``²``."""
    if not 1 <= len(digits) <= 5 or not digits.isascii() or not digits.isdigit():
        return None
    port = int(digits)
    return port if 1 <= port <= 65535 else None


def authority(scheme: str, name: str, port: int | None) -> str:
    """Return ``name`` with ``port``, which is omitted if it is the default of ``scheme``."""
    return name if port is None or port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def _name(text: str) -> str | None:
    name = text.lower().removesuffix(".")
    return name if len(name) <= 253 and _NAME.fullmatch(name) else None


def _ipv6(literal: str) -> str | None:
    if "%" in literal:
        return None
    try:
        address = IPv6Address(literal)
    except ValueError:
        return None
    mapped = address.ipv4_mapped
    # Browsers write such a host in hexadecimal; so does Python up to 3.12, but 3.13 and later write it dotted.
    text = address.compressed if mapped is None else f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}"
    return f"[{text}]"

"""Network addresses in the notations of servers, proxies and clients, normalized.

A port is removed, a zone id dropped, and an IPv4-mapped IPv6 address becomes the IPv4 address.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mks_hardening._core.checks import text_of, whole_number
from mks_hardening._core.memo import Memo
from mks_hardening.exceptions import ConfigurationError

__all__ = ["UNKNOWN", "Address", "Network", "client_key", "parse_address", "parse_network"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""Placeholder if a peer has no address, as on a unix socket."""

_LONGEST = 64  # an IPv6 address in brackets with zone id and port
_PORT = re.compile(r":[0-9]{1,5}\Z")
# RFC 4291, 2.5.5.2; dual-stack sockets report IPv4 peers in this form.
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_address(text: str) -> Address | None:
    """Return the address in ``text``, or ``None`` for names, obfuscated ids, leading zeros and other text."""
    if len(text) > _LONGEST or not text.isascii():
        return None
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _PORT.fullmatch(port)) or ":" not in text:
            return None
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    return _bare_address(text)


def _bare_address(text: str) -> Address | None:
    address, percent, zone = text.partition("%")
    if percent and (not zone or ":" not in address):
        return None
    try:
        found = ip_address(address)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def parse_network(text: str, *, parameter: str) -> Network:
    """Return a network in CIDR notation, or a single address as a network.

    Raises:
        ConfigurationError: neither, or a network with host bits set (``10.0.0.1/8``).
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{parameter} must hold addresses or CIDR networks such as '10.0.0.0/8': {error}",
            parameter=parameter,
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def client_key(ip: str, *, ipv6_prefix: int = 64) -> str:
    """Return the rate limit key of a client: its IPv4 address, or its IPv6 network, such as ``2001:db8::/64``.

    A household or server has a whole /64, so limits on single IPv6 addresses are ineffective.

    Args:
        ip: an address, as in ``RequestOrigin.client_ip``; all invalid addresses share the key ``unknown``.
        ipv6_prefix: length of the IPv6 network in bits, 1 to 128.

    Raises:
        ConfigurationError: ``ip`` is not a string, or ``ipv6_prefix`` is out of range.
    """
    try:
        return _KEYS[ip, ipv6_prefix]
    except TypeError:  # unhashable arguments
        return _client_key((ip, ipv6_prefix))


def _client_key(question: tuple[str, int]) -> str:
    ip, prefix = question
    whole_number(prefix, parameter="ipv6_prefix", minimum=1, maximum=128)
    address = parse_address(text_of(ip, parameter="ip"))
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, prefix), strict=False))
    return UNKNOWN if address is None else str(address)


_KEYS = Memo(_client_key)

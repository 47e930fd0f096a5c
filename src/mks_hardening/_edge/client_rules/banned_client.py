"""Keys under which clients are banned: an IPv4 address, or an IPv6 network."""

from __future__ import annotations

from typing import Final

from mks_hardening._core.checks import text_of, whole_number
from mks_hardening._core.origin.network_addresses import client_key, parse_address, parse_network
from mks_hardening.exceptions import ConfigurationError

__all__ = ["banned_client", "ipv6_prefix_of"]

_WIDEST: Final = 32
_NARROWEST: Final = 64


def ipv6_prefix_of(value: object) -> int:
    """Return a length of IPv6 prefixes: a /64 is one client, and some providers give customers a /48 or /56."""
    return whole_number(value, parameter="ipv6_prefix", minimum=_WIDEST, maximum=_NARROWEST)


def banned_client(text: object, *, ipv6_prefix: int) -> str:
    """Return the key of a client given by an operator: an address, or an IPv6 network as ``bans list`` prints it.

    Raises:
        ConfigurationError: neither, or a network of several clients, which belongs on a deny list.
    """
    given = text_of(text, parameter="client")
    if parse_address(given) is not None:
        return client_key(given, ipv6_prefix=ipv6_prefix)
    network = parse_network(given, parameter="client")
    if network.prefixlen < (32 if network.version == 4 else ipv6_prefix):
        raise ConfigurationError(
            f"client: {given!r} is more than one client; put networks on the deny list of ClientRules",
            parameter="client",
        )
    return client_key(str(network.network_address), ipv6_prefix=ipv6_prefix)

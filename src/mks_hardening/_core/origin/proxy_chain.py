"""Values of forwarding headers from trusted proxies, read from right to left."""

from __future__ import annotations

from collections.abc import Iterable

from mks_hardening._core.checks import strings, whole_number
from mks_hardening._core.origin.forwarded import elements_from_right
from mks_hardening._core.origin.network_addresses import parse_address, parse_network
from mks_hardening._core.origin.request_origin import ForwardedValues

__all__ = ["ProxyChain"]

_WITHOUT_ADDRESS = frozenset({"", "unix:", "localhost"})  # gunicorn and uWSGI, nginx, waitress
# More proxies do not occur; without a limit, a header full of commas would create an object for each.
_MOST_HOPS = 64


class ProxyChain:
    """Trusted peers, and the header values that they vouch for.

    Raises:
        ConfigurationError: an address or network is malformed, or ``hops`` is out of range.
    """

    __slots__ = ("_anywhere", "_networks", "_unix", "hops", "trusted_proxies")

    def __init__(self, trusted_proxies: Iterable[str], *, hops: int | None) -> None:
        self.trusted_proxies: tuple[str, ...] = strings(
            trusted_proxies, parameter="trusted_proxies", of="addresses"
        )
        self.hops: int | None = (
            None if hops is None else whole_number(hops, parameter="hops", minimum=1, maximum=_MOST_HOPS)
        )
        self._networks = tuple(
            parse_network(text, parameter="trusted_proxies")
            for text in self.trusted_proxies
            if text != "unix"
        )
        self._unix = "unix" in self.trusted_proxies
        self._anywhere = hops is not None and not self.trusted_proxies

    def trusts(self, peer: str | None) -> bool:
        """Return whether a connection comes from a trusted proxy; ``None`` is a peer without an address."""
        return self._anywhere or (
            self._unix if peer is None or peer in _WITHOUT_ADDRESS else self._is_trusted(peer)
        )

    def _is_trusted(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)

    def from_forwarded(self, text: str) -> ForwardedValues:
        """Parse the ``Forwarded`` field."""
        elements = list(elements_from_right(text))
        place, client = self._walk([element.get("for", "") for element in elements])
        if self.hops is not None:
            elements = elements[self.hops - 1 : self.hops]
        parameters: dict[str, str] = {}
        # The value nearest to the client wins; only trusted proxies wrote the elements up to `place`.
        for element in elements[: max(place, 1)]:
            parameters.update(element)
        return ForwardedValues(client, parameters.get("proto"), parameters.get("host"))

    def from_x_forwarded(
        self,
        addresses: str | None,
        scheme: str | None,
        host: str | None,
        port: str | None,
        prefix: str | None,
    ) -> ForwardedValues:
        """Parse the ``X-Forwarded-*`` fields; ``None`` for a missing field."""
        place, client = self._walk(_values_from_right(addresses))
        rest = (self._at(_values_from_right(value), max(place, 1)) for value in (scheme, host, port, prefix))
        return ForwardedValues(client, *rest)

    def _at(self, values: list[str], place: int) -> str | None:
        if self.hops is not None:
            return values[self.hops - 1] if len(values) >= self.hops else None
        return values[min(place, len(values)) - 1] if values else None

    def _walk(self, addresses: list[str]) -> tuple[int, str | None]:
        """Return the number of values examined from the right, and the client's address if one was found."""
        # Fewer values than proxies: the request took another route, and none of its values are trusted.
        if self.hops is not None and len(addresses) < self.hops:
            return 0, None
        client = None
        for place, text in enumerate(addresses[: self.hops], start=1):
            address = parse_address(text)
            if address is None:
                return place, client
            client = str(address)
            if self.hops is None and not self._is_trusted(client):
                return place, client
        return len(addresses[: self.hops]), client


def _values_from_right(text: str | None) -> list[str]:
    if not text:
        return []
    values = text.rsplit(",", _MOST_HOPS)
    if len(values) > _MOST_HOPS:
        del values[0]  # not a single value, but everything to the left of the limit
    return [value.strip(" \t") for value in reversed(values)]

"""Sets of networks, with look-ups whose cost does not grow with the number of networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.origin.network_addresses import Address, Network

__all__ = ["NetworkSet"]

_BITS: Final = {4: 32, 6: 128}


class NetworkSet:
    """Tests whether an address is in one of many networks, with one look-up per length of prefix."""

    __slots__ = ("_tables",)

    def __init__(self, networks: Iterable[Network]) -> None:
        tables: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            shift = _BITS[network.version] - network.prefixlen
            prefixes = tables[network.version].setdefault(shift, set())
            prefixes.add(int(network.network_address) >> shift)
        self._tables = {version: tuple(table.items()) for version, table in tables.items()}

    def __contains__(self, address: Address) -> bool:
        bits = int(address)
        return any(bits >> shift in prefixes for shift, prefixes in self._tables[address.version])

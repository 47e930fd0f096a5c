"""Who sent a request, over which scheme, to which host: decided once, from what trusted peers say.

A header is believed only when the peer that opened the connection is trusted, values are counted from the right,
and exactly one family of headers is read: falling back from one to the other would be a way around the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple, get_args

from mks_hardening._core.addresses import client_key, parse_address, parse_network
from mks_hardening._core.forwarded import elements_from_right
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin_facts import (
    X_FORWARDED_KEYS,
    Connection,
    Family,
    RequestOrigin,
    Statements,
    combine,
    restated,
    wanted,
)
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "ORIGIN_KEY",
    "Family",
    "ProxyTrust",
    "RequestOrigin",
    "Settlement",
    "client_key",
    "origin_reader",
    "request_origin",
]

ORIGIN_KEY: Final = "mks_hardening.origin"
"""Where the decision is kept in the environ, for all wrappers and the application."""


class Settlement(NamedTuple):
    """A decision and what it changes in the environ: keys to set and keys to remove."""

    origin: RequestOrigin
    changes: Mapping[str, Any]
    removals: frozenset[str]


_CONNECTION_KEYS = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
_SERVER_KEYS = ("SERVER_NAME", "SERVER_PORT")  # count only where there is no Host
_FORWARDED_KEYS = ("HTTP_FORWARDED",)
# Names under which one proxy product or another hands on the same facts; nobody else may.
_OTHER_KEYS = (
    *(f"HTTP_X_FORWARDED_{name}" for name in ("BY", "PATH", "PROTOCOL", "SCHEME", "SERVER", "SSL")),
    *(f"HTTP_{name}" for name in ("FRONT_END_HTTPS", "PROXY", "TRUE_CLIENT_IP", "X_CLIENT_IP")),
    *(f"HTTP_X_{name}" for name in ("CLUSTER_CLIENT_IP", "ORIGINAL_HOST", "ORIGINAL_URL", "REAL_IP")),
    *(f"HTTP_X_{name}" for name in ("REWRITE_URL", "SCRIPT_NAME", "URL_SCHEME")),
)
_FAMILY_KEYS = frozenset((*X_FORWARDED_KEYS, *_FORWARDED_KEYS))
_DIRECT_KEYS = (*_CONNECTION_KEYS, *_SERVER_KEYS)
_connection_of = itemgetter(*_CONNECTION_KEYS)
_UNTRUSTED_KEYS = frozenset((*X_FORWARDED_KEYS, *_FORWARDED_KEYS, *_OTHER_KEYS))
_WITHOUT_ADDRESS = frozenset({"", "unix:", "localhost"})  # gunicorn and uWSGI, nginx, waitress
_MOST_HOPS = 64


class ProxyTrust:
    """Which peers are believed, and which family of headers they are believed in.

    Args:
        trusted_proxies: addresses and CIDR networks of the proxies, and ``"unix"`` for peers on a unix socket.
            Empty trusts nobody.
        family: ``"x-forwarded"`` (``X-Forwarded-For``, ``-Proto``, ``-Host``, ``-Port``, ``-Prefix``) or
            ``"forwarded"`` (RFC 7239). The other one is never read.
        hops: number of proxies in front of the application, where their addresses are not known: the peer is
            trusted (when ``trusted_proxies`` is given, only such a peer) and the value at that place from the
            right counts. ``None`` walks leftwards over trusted addresses instead.

    Raises:
        ConfigurationError: an address or network is malformed, the family unknown, ``hops`` below 1.

    Source: RFC 7239; ASVS 5.0 V4.1.3, V15.3.4.
    """

    __slots__ = ("_anywhere", "_direct", "_keys", "_networks", "_peers", "_rare", "_trusted", "_unix", "_usual",
                 "family", "hops", "trusted_proxies")  # fmt: skip

    def __init__(
        self, trusted_proxies: Iterable[str] = (), *, family: Family = "x-forwarded", hops: int | None = None
    ) -> None:
        self.trusted_proxies: tuple[str, ...] = _texts(trusted_proxies)
        if family not in get_args(Family):
            raise ConfigurationError("family must be 'x-forwarded' or 'forwarded'", parameter="family")
        self.family: Family = family
        self.hops: int | None = _positive(hops)
        self._networks = tuple(
            parse_network(text, parameter="trusted_proxies")
            for text in self.trusted_proxies
            if text != "unix"
        )
        self._unix = "unix" in self.trusted_proxies
        self._anywhere = hops is not None and not self.trusted_proxies
        x_family = family == "x-forwarded"
        # Most requests of a proxy have the same headers; those are read at C speed, all others one by one.
        usual = (*_CONNECTION_KEYS, *(X_FORWARDED_KEYS[:2] if x_family else _FORWARDED_KEYS))
        self._usual = itemgetter(*usual)
        self._rare = _FAMILY_KEYS.difference(usual)
        self._keys = (*usual, *(X_FORWARDED_KEYS[2:] if x_family else ()), *_SERVER_KEYS)
        self._peers = Memo(self._is_trusted_peer)
        self._direct = Memo(_settle_direct)
        self._trusted = Memo(self._settle_trusted, longest=1024)

    def resolve(self, environ: Mapping[str, Any]) -> RequestOrigin:
        """Decide for one request; ``environ`` is read, never changed."""
        return self.settle(environ).origin

    def admit(self, environ: dict[str, Any]) -> RequestOrigin:
        """Decide for one request and make its environ say so: nothing untrusted is left in it."""
        origin, changes, removals = self.settle(environ)
        environ.update(changes)
        if removals and not removals.isdisjoint(environ):
            for key in environ.keys() & removals:
                del environ[key]
        return origin

    def settle(self, environ: Mapping[str, Any]) -> Settlement:
        """Decide for one request, with what must change in its environ before an application may read it."""
        trusted = self._peers[environ.get("REMOTE_ADDR")]
        try:
            if not trusted:
                return self._direct[_connection_of(environ)]
            if environ.keys().isdisjoint(self._rare):
                return self._trusted[self._usual(environ)]
        except KeyError:  # a header that is usually there is not
            pass
        if not trusted:
            return self._direct[tuple(map(environ.get, _DIRECT_KEYS))]
        return self._trusted[tuple(map(environ.get, self._keys))]

    def _is_trusted_peer(self, peer: str | None) -> bool:
        return self._anywhere or (
            self._unix if peer is None or peer in _WITHOUT_ADDRESS else self._is_trusted(peer)
        )

    def _is_trusted(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)

    def _settle_trusted(self, question: tuple[str | None, ...]) -> Settlement:
        found = dict(zip(self._keys, question, strict=False))
        connection = Connection(*map(found.get, _DIRECT_KEYS))
        if self.family == "forwarded":
            said = self._from_forwarded(found.get("HTTP_FORWARDED") or "")
        else:
            said = self._from_x_forwarded(*(_values_from_right(found.get(key)) for key in X_FORWARDED_KEYS))
        origin = combine(connection, said)
        seen = wanted(said, origin)
        for key, value in restated(self.family, said, origin).items():
            if found.get(key) is not None:
                seen[key] = value
        changes = {key: value for key, value in seen.items() if value and value != found.get(key)}
        emptied = frozenset(key for key, value in seen.items() if not value)
        # A usual question says that no other header of either family is there.
        foreign = self._rare.difference(self._keys) if len(question) == len(self._keys) else ()
        return Settlement(origin, {**changes, ORIGIN_KEY: origin}, emptied.union(foreign))

    def _from_forwarded(self, text: str) -> Statements:
        elements = list(elements_from_right(text))
        place, client = self._walk([element.get("for", "") for element in elements])
        if self.hops is not None:
            elements = elements[self.hops - 1 : self.hops]
        said: dict[str, str] = {}
        # The statement nearest to the client wins; only trusted proxies wrote the elements up to `place`.
        for element in elements[: max(place, 1)]:
            said.update(element)
        return Statements(client, said.get("proto"), said.get("host"))

    def _from_x_forwarded(
        self,
        addresses: list[str],
        schemes: list[str],
        hosts: list[str],
        ports: list[str],
        prefixes: list[str],
    ) -> Statements:
        place, client = self._walk(addresses)
        rest = (self._at(values, max(place, 1)) for values in (schemes, hosts, ports, prefixes))
        return Statements(client, *rest)

    def _at(self, values: list[str], place: int) -> str | None:
        if self.hops is not None:
            return values[self.hops - 1] if len(values) >= self.hops else None
        return values[min(place, len(values)) - 1] if values else None

    def _walk(self, addresses: list[str]) -> tuple[int, str | None]:
        """How many values were looked at from the right, and the client's address if one was found."""
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

    def __repr__(self) -> str:
        return f"ProxyTrust({self.trusted_proxies!r}, family={self.family!r}, hops={self.hops!r})"


def origin_reader(trust: ProxyTrust | None) -> Callable[[dict[str, Any]], RequestOrigin]:
    """How a wrapper learns the origin when no outer one has decided.

    Without trust of its own it believes no header and touches none.
    """
    return _NOBODY.resolve if trust is None else trust.admit


def request_origin(environ: dict[str, Any]) -> RequestOrigin:
    """The origin that an outer wrapper has decided; without one, what the connection itself says."""
    return environ.get(ORIGIN_KEY) or _NOBODY.resolve(environ)


def _settle_direct(values: tuple[str | None, ...]) -> Settlement:
    origin = combine(Connection(*values), None)
    return Settlement(origin, {ORIGIN_KEY: origin}, _UNTRUSTED_KEYS)


def _values_from_right(text: str | None) -> list[str]:
    if not text:
        return []
    values = text.rsplit(",", _MOST_HOPS)
    if len(values) > _MOST_HOPS:
        del values[0]  # not one value, but all that were left of the bound
    return [value.strip(" \t") for value in reversed(values)]


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)):
        raise ConfigurationError(
            "trusted_proxies must be a sequence of addresses, not one string", parameter="trusted_proxies"
        )
    texts = tuple(values)
    if not all(isinstance(text, str) for text in texts):
        raise ConfigurationError("trusted_proxies must hold strings", parameter="trusted_proxies")
    return texts


def _positive(hops: int | None) -> int | None:
    if hops is not None and (
        isinstance(hops, bool) or not isinstance(hops, int) or not 1 <= hops <= _MOST_HOPS
    ):
        raise ConfigurationError(f"hops must be None or a number from 1 to {_MOST_HOPS}", parameter="hops")
    return hops


_NOBODY = ProxyTrust()

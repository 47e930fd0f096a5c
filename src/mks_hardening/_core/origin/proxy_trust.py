"""Determine client, scheme and host of a request once, from the headers of trusted peers.

A header is read only if the peer that opened the connection is trusted, values are counted from the right, and
exactly one family of headers is read: a fallback to the other would be a bypass. This module reads and changes the
environ; ``proxy_chain`` and ``request_origin`` work on plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple, get_args

from mks_hardening._core.checks import choice, instance
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.forwarding_headers import (
    FORWARDED,
    OTHER_FIELDS,
    X_FORWARDED,
    ignored_fields,
    kept_fields,
)
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.origin.proxy_chain import ProxyChain
from mks_hardening._core.origin.request_origin import (
    Family,
    ForwardedValues,
    PeerConnection,
    RequestOrigin,
    host_field,
    resolve_origin,
    rewritten_headers,
)
from mks_hardening._core.web.environ_keys import ORIGIN_KEY, header_key
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "NO_TRUST",
    "Family",
    "OriginDecision",
    "ProxyTrust",
    "RequestOrigin",
    "client_key",
    "origin_reader",
]


class OriginDecision(NamedTuple):
    """An origin and the resulting changes of the environ: keys to set and keys to remove."""

    origin: RequestOrigin
    changes: Mapping[str, Any]
    removals: frozenset[str]


_CONNECTION_KEYS = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME")
_SERVER_KEYS = ("SERVER_NAME", "SERVER_PORT")  # used only without a Host field
_DIRECT_KEYS = (*_CONNECTION_KEYS, *_SERVER_KEYS)
_X_FORWARDED_KEYS = tuple(map(header_key, X_FORWARDED))
_FORWARDED_KEYS = tuple(map(header_key, FORWARDED))
_OTHER_KEYS = frozenset(map(header_key, OTHER_FIELDS))
_FAMILY_KEYS = frozenset((*_X_FORWARDED_KEYS, *_FORWARDED_KEYS))
_UNTRUSTED_KEYS = _FAMILY_KEYS | _OTHER_KEYS
_connection_of = itemgetter(*_CONNECTION_KEYS)


class ProxyTrust:
    """Trusted proxies, and the family of forwarding headers that they set.

    The application sees only the result. The other family, and the product-specific headers for addresses, targets
    and identities (``X-Real-IP``, ``True-Client-IP``, ``CF-Connecting-IP``, ``X-Original-URL``,
    ``X-Forwarded-Client-Cert``, ``X-Forwarded-User`` and similar), are removed from every request, unless
    ``keep_headers`` names them and the peer is trusted.

    Args:
        trusted_proxies: addresses and CIDR networks of the proxies, and ``"unix"`` for peers on a unix socket.
            Empty trusts no peer.
        family: ``"x-forwarded"`` (``X-Forwarded-For``, ``-Proto``, ``-Host``, ``-Port``, ``-Prefix``) or
            ``"forwarded"`` (RFC 7239). The other one is never read.
        hops: number of proxies in front of the application, if their addresses are not known: the peer is trusted
            (only peers in ``trusted_proxies``, if given) and the value at that position from the right is used.
            ``None`` skips trusted addresses from right to left instead.
        keep_headers: headers of trusted peers that the application reads itself; the proxy must set or remove each
            of them in every request.
        ignore_headers: those of ``X-Forwarded-Host``, ``-Port`` and ``-Prefix`` that the proxy neither sets nor
            removes: a client could send them through it. They are not read, and are removed from every request.

    Raises:
        ConfigurationError: an address or network is malformed, the family is unknown, ``hops`` is below 1,
            ``keep_headers`` contains a header that would not be removed anyway, or ``Proxy``, or ``ignore_headers``
            contains another header than these three, or is given with the family ``"forwarded"``.

    Source: RFC 7239; ASVS 5.0 V4.1.3, V15.3.4.
    """

    __slots__ = ("_chain", "_direct", "_foreign", "_keys", "_peers", "_rare", "_trusted", "_usual",
                 "family", "hops", "ignore_headers", "keep_headers", "trusted_proxies")  # fmt: skip

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        family: Family = "x-forwarded",
        hops: int | None = None,
        keep_headers: Iterable[str] = (),
        ignore_headers: Iterable[str] = (),
    ) -> None:
        self._chain = ProxyChain(trusted_proxies, hops=hops)
        self.trusted_proxies: tuple[str, ...] = self._chain.trusted_proxies
        self.hops: int | None = self._chain.hops
        self.family: Family = choice(family, get_args(Family), parameter="family")
        self.keep_headers: frozenset[str] = kept_fields(keep_headers, parameter="keep_headers")
        self.ignore_headers: frozenset[str] = ignored_fields(ignore_headers, parameter="ignore_headers")
        if self.ignore_headers and family == "forwarded":
            raise ConfigurationError(
                "ignore_headers (MKS_PROXY_IGNORE_HEADERS) names X-Forwarded-* headers, which the family "
                "'forwarded' never reads; omit it",
                parameter="ignore_headers",
            )
        ignored = frozenset(map(header_key, self.ignore_headers))
        x_family = family == "x-forwarded"
        # Most requests of a proxy have the same headers; those are read at C speed, all others one by one.
        usual = (*_CONNECTION_KEYS, *(_X_FORWARDED_KEYS[:2] if x_family else _FORWARDED_KEYS))
        self._usual = itemgetter(*usual)
        more = (key for key in _X_FORWARDED_KEYS[2:] if x_family and key not in ignored)
        self._keys = (*usual, *more, *_SERVER_KEYS)
        self._foreign = _UNTRUSTED_KEYS.difference(self._keys, map(header_key, self.keep_headers))
        self._rare = self._foreign | _FAMILY_KEYS.difference(usual)
        # Connections repeat: a decision costs one lookup, and only new combinations are computed.
        self._peers = Memo(self._chain.trusts)
        self._direct = Memo(_decide_direct)
        self._trusted = Memo(self._decide_trusted, longest=1024)

    def resolve(self, environ: Mapping[str, Any]) -> RequestOrigin:
        """Return the origin of a request without changing ``environ``."""
        return self.decide(environ).origin

    def admit(self, environ: dict[str, Any]) -> RequestOrigin:
        """Return the origin of a request and update its environ accordingly: no untrusted header remains."""
        origin, changes, removals = self.decide(environ)
        environ.update(changes)
        if removals and not removals.isdisjoint(environ):
            for key in environ.keys() & removals:
                del environ[key]
        return origin

    def decide(self, environ: Mapping[str, Any]) -> OriginDecision:
        """Return the origin of a request, with the changes to its environ that an application must see."""
        trusted = self._peers[environ.get("REMOTE_ADDR")]
        try:
            if not trusted:
                return self._direct[_connection_of(environ)]
            if self._rare.isdisjoint(environ):
                return self._trusted[self._usual(environ)]
        except KeyError:  # a usual header is missing
            pass
        if not trusted:
            return self._direct[tuple(map(environ.get, _DIRECT_KEYS))]
        return self._trusted[tuple(map(environ.get, self._keys))]

    def _decide_trusted(self, question: tuple[str | None, ...]) -> OriginDecision:
        found = dict(zip(self._keys, question, strict=False))
        connection = PeerConnection(*map(found.get, _DIRECT_KEYS))
        if self.family == "forwarded":
            forwarded = self._chain.from_forwarded(found.get("HTTP_FORWARDED") or "")
        else:
            forwarded = self._chain.from_x_forwarded(*map(found.get, _X_FORWARDED_KEYS))
        origin = resolve_origin(connection, forwarded)
        seen = _wanted(forwarded, origin)
        for name, value in rewritten_headers(self.family, forwarded, origin).items():
            key = header_key(name)
            if found.get(key) is not None:
                seen[key] = value
        changes = {key: value for key, value in seen.items() if value and value != found.get(key)}
        emptied = frozenset(key for key, value in seen.items() if not value)
        # The usual key means that no other header of either family is present.
        foreign = self._foreign if len(question) == len(self._keys) else ()
        return OriginDecision(origin, {**changes, ORIGIN_KEY: origin}, emptied.union(foreign))

    def __repr__(self) -> str:
        return f"ProxyTrust({self.trusted_proxies!r}, family={self.family!r}, hops={self.hops!r})"


def origin_reader(trust: ProxyTrust | None) -> Callable[[dict[str, Any]], RequestOrigin]:
    """Return the function with which a middleware determines the origin if no outer one has done so.

    Without ``trust``, it trusts no header and changes none.
    """
    return NO_TRUST.resolve if trust is None else instance(trust, ProxyTrust, parameter="trust").admit


def _wanted(forwarded: ForwardedValues, origin: RequestOrigin) -> dict[str, str]:
    """Return the environ values for the application; an empty value removes the key."""
    changes = {"wsgi.url_scheme": origin.scheme}
    if forwarded.client:
        changes["REMOTE_ADDR"] = origin.client_ip
    if forwarded.host is not None or forwarded.port is not None:
        changes["HTTP_HOST"] = host_field(origin)
        if origin.host:
            changes |= {"SERVER_NAME": origin.host, "SERVER_PORT": str(origin.port)}
    if forwarded.prefix and origin.prefix:
        changes["SCRIPT_NAME"] = origin.prefix
    return changes


def _decide_direct(values: tuple[str | None, ...]) -> OriginDecision:
    origin = resolve_origin(PeerConnection(*values), None)
    return OriginDecision(origin, {ORIGIN_KEY: origin}, _UNTRUSTED_KEYS)


NO_TRUST: Final = ProxyTrust()
"""Trusts no peer: the origin is that of the connection itself."""

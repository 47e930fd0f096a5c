"""Origin of an ASGI request: the decision of ``ProxyTrust``, applied to a scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.forwarding_headers import FORWARDED, OTHER_FIELDS, X_FORWARDED
from mks_hardening._core.origin.proxy_trust import NO_TRUST, ProxyTrust, RequestOrigin
from mks_hardening._core.web.asgi_scope import mount_of, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY, header_key
from mks_hardening._core.web.private_scope import private_scope

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import RawHeaders, Scope

__all__ = ["NO_SCOPE_TRUST", "ScopeTrust", "admit_by"]

_SECURE: Final = {"http": "https", "ws": "wss", "https": "https", "wss": "wss"}
_CLEAR: Final = {"http": "http", "ws": "ws", "https": "http", "wss": "ws"}
_READ: Final = {name.lower().encode(): header_key(name) for name in ("Host", *X_FORWARDED, *FORWARDED)}
_WATCHED: Final = {**_READ, **{name.lower().encode(): header_key(name) for name in OTHER_FIELDS}}
_name: Final = itemgetter(0)


class _Plan(NamedTuple):
    """Which header lines of a request matter for its origin: their positions, and their environ keys."""

    positions: tuple[int, ...]
    keys: tuple[str, ...]


class _Decision(NamedTuple):
    """An origin with the changes of a scope; ``None`` leaves a value as it is."""

    origin: RequestOrigin
    client: tuple[str, int] | None
    scheme: str | None
    server: tuple[str, int] | None
    prefix: str | None
    host: bytes | None
    dropped: frozenset[str]
    replaced: dict[str, bytes]


class ScopeTrust:
    """Applies a ``ProxyTrust`` to scopes.

    Args:
        trust: the trusted proxies.
    """

    __slots__ = ("_decisions", "_plans", "_trust")

    def __init__(self, trust: ProxyTrust) -> None:
        self._trust = trust
        # Requests repeat: a decision costs two lookups, and only new combinations are computed.
        self._plans: Memo[tuple[bytes, ...], _Plan] = Memo(_plan, entries=1024, longest=4096)
        self._decisions: Memo[tuple[Any, ...], _Decision] = Memo(self._decide, longest=1024)

    def resolve(self, scope: Mapping[str, Any]) -> RequestOrigin:
        """Return the origin of a request."""
        return self._decision(scope).origin

    def admit(self, scope: Scope) -> Scope:
        """Return the scope that the application may see, with the origin: no untrusted header remains in it."""
        decision = self._decision(scope)
        inner = private_scope(scope)
        inner[ORIGIN_KEY] = decision.origin
        if decision.client is not None:
            inner["client"] = decision.client
        if decision.scheme is not None:
            inner["scheme"] = decision.scheme
        if decision.server is not None:
            inner["server"] = decision.server
        if decision.prefix is not None:
            _mount(inner, decision.prefix)
        if decision.dropped or decision.replaced or decision.host is not None:
            inner["headers"] = _rewritten(scope["headers"], decision)
        return inner

    def _decision(self, scope: Mapping[str, Any]) -> _Decision:
        headers = scope["headers"]
        plan = self._plans[tuple(map(_name, headers))]
        client = scope.get("client")
        return self._decisions[
            plan.keys,
            client[0] if client else None,
            scope.get("scheme") or "http",
            scope.get("root_path") or "",
            *[headers[position][1] for position in plan.positions],
            *(() if "HTTP_HOST" in plan.keys else scope.get("server") or ()),
        ]

    def _decide(self, question: tuple[Any, ...]) -> _Decision:
        keys, peer, scheme, root, *values = question
        secure = scheme in ("https", "wss")
        environ: dict[str, Any] = {"wsgi.url_scheme": "https" if secure else "http", "SCRIPT_NAME": root}
        if peer is not None:
            environ["REMOTE_ADDR"] = peer
        for key, value in zip(keys, values, strict=False):
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        server = values[len(keys) :]
        if server:
            environ["SERVER_NAME"] = str(server[0])
            environ["SERVER_PORT"] = str(server[1] or "")
        origin, changes, removals = self._trust.settle(environ)
        new_scheme = (_SECURE if origin.scheme == "https" else _CLEAR).get(scheme, scheme)
        host = changes.get("HTTP_HOST")
        return _Decision(
            origin=origin,
            client=(origin.client_ip, 0) if "REMOTE_ADDR" in changes else None,
            scheme=None if new_scheme == scheme else new_scheme,
            server=(origin.host, origin.port) if "SERVER_NAME" in changes else None,
            prefix=changes.get("SCRIPT_NAME"),
            host=None if host is None else host.encode("latin-1"),
            dropped=frozenset(key for key in keys if key in removals),
            replaced={
                key: value.encode("latin-1")
                for key, value in changes.items()
                if key in keys and key != "HTTP_HOST" and isinstance(value, str)
            },
        )


def admit_by(trust: ProxyTrust | None) -> Callable[[Scope], Scope]:
    """Return the function with which a middleware determines the origin if no outer one has done so.

    Without ``trust``, it trusts no header and changes none.
    """
    if trust is not None:
        return ScopeTrust(trust).admit

    def resolve(scope: Scope) -> Scope:
        inner = private_scope(scope)
        inner[ORIGIN_KEY] = NO_SCOPE_TRUST.resolve(scope)
        return inner

    return resolve


def _plan(names: tuple[bytes, ...]) -> _Plan:
    lower = [name.lower() for name in names]
    positions = tuple(position for position, name in enumerate(lower) if name in _WATCHED)
    return _Plan(positions, tuple(_WATCHED[lower[position]] for position in positions))


def _rewritten(headers: RawHeaders, decision: _Decision) -> RawHeaders:
    """Return the header list that the application sees; a value from several lines stays in one."""
    rewritten: RawHeaders = []
    done: set[str] = set()
    new = {**decision.replaced, **({} if decision.host is None else {"HTTP_HOST": decision.host})}
    for name, value in headers:
        key = _WATCHED.get(name.lower())
        if key in decision.dropped:
            continue
        if key in new:
            if key not in done:
                rewritten.append((name, new[key]))
                done.add(key)
            continue
        rewritten.append((name, value))
    if decision.host is not None and "HTTP_HOST" not in done:
        rewritten.append((b"host", decision.host))
    return rewritten


def _mount(scope: Scope, prefix: str) -> None:
    """Mount the application under a prefix that the proxy has removed from the path."""
    below = path_below_mount(scope)
    raw: bytes | None = scope.get("raw_path")
    old = mount_of(scope).encode("latin-1")
    if raw is not None:
        raw_below = raw.removeprefix(old) if old and raw.startswith(old + b"/") else raw
        scope["raw_path"] = prefix.encode("latin-1") + raw_below
    scope["path"] = prefix + below.encode("latin-1").decode("utf-8", "replace")
    scope["root_path"] = prefix


NO_SCOPE_TRUST: Final = ScopeTrust(NO_TRUST)
"""Trusts no peer: the origin is that of the connection itself."""

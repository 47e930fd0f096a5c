"""Origin of an ASGI request: the decision of ``ProxyTrust``, applied to a scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.forwarding_headers import ALWAYS_REMOVED, FORWARDED, OTHER_FIELDS, X_FORWARDED
from mks_hardening._core.origin.proxy_trust import NO_TRUST, ProxyTrust, RequestOrigin
from mks_hardening._core.web.asgi_scope import header, mount_of, path_below_mount
from mks_hardening._core.web.environ_keys import ORIGIN_KEY, header_key
from mks_hardening._core.web.private_scope import private_scope

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import RawHeaders, Scope

__all__ = ["ScopeTrust", "admit_by", "direct_origin"]

_SECURE: Final = {"http": "https", "ws": "wss", "https": "https", "wss": "wss"}
_CLEAR: Final = {"http": "http", "ws": "ws", "https": "http", "wss": "ws"}
_READ: Final = {name.lower().encode(): header_key(name) for name in ("Host", *X_FORWARDED, *FORWARDED)}
_WATCHED: Final = {**_READ, **{name.lower().encode(): header_key(name) for name in OTHER_FIELDS}}
_DROPPED_KEY: Final = header_key(ALWAYS_REMOVED)
_name: Final = itemgetter(0)


Lines = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)  # whose attributes are read faster than those of a NamedTuple
class _HeaderSelection:
    """A function that picks the header lines that matter for the origin, and whether ``Host`` is one of them."""

    pick: Callable[[RawHeaders], Lines]
    names_host: bool


@dataclass(frozen=True, slots=True)
class _ScopeChanges:
    """The values of the scope that change, the origin among them, and the changes of path and header list."""

    changes: dict[str, Any]
    prefix: str | None
    changes_more: bool
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
        self._plans: Memo[tuple[bytes, ...], _HeaderSelection] = Memo(_plan, entries=1024, longest=4096)
        self._decisions: Memo[tuple[Any, ...], _ScopeChanges] = Memo(self._decide, longest=1024)

    def admit(self, scope: Scope) -> Scope:
        """Return the scope that the application may see, with the origin: no untrusted header remains in it."""
        headers: RawHeaders = scope.get("headers") or []
        plan = self._plans[tuple(map(_name, headers))]
        client = scope.get("client")
        question = (
            plan.pick(headers),
            client[0] if client else None,
            scope.get("scheme"),
            scope.get("root_path"),
            None if plan.names_host else scope.get("server"),
        )
        try:
            decision = self._decisions[question]
        except TypeError:  # a server may send lists instead of tuples, which cannot be looked up
            decision = self._decide(question)
        inner = private_scope(scope, decision.changes)
        if decision.changes_more:
            if decision.prefix is not None:
                _mount(inner, decision.prefix)
            inner["headers"] = _rewritten(headers, decision)
        return inner

    def _decide(self, question: tuple[Any, ...]) -> _ScopeChanges:
        lines, *connection = question
        scheme: str = connection[1] or "http"
        environ = _environ(*connection)
        keys = [_KEYS[name] or "" for name, _ in lines]
        for key, (_, value) in zip(keys, lines, strict=True):
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        origin, changes, removals = self._trust.decide(environ)
        new_scheme = (_SECURE if origin.scheme == "https" else _CLEAR).get(scheme, scheme)
        host = changes.get("HTTP_HOST")
        dropped = frozenset(key for key in keys if key in removals)
        replaced = {
            key: value.encode("latin-1")
            for key, value in changes.items()
            if key in keys and key != "HTTP_HOST" and isinstance(value, str)
        }
        values: dict[str, Any] = {ORIGIN_KEY: origin}
        if "REMOTE_ADDR" in changes:
            values["client"] = (origin.client_ip, 0)
        if new_scheme != scheme:
            values["scheme"] = new_scheme
        if "SERVER_NAME" in changes:
            values["server"] = (origin.host, origin.port)
        return _ScopeChanges(
            changes=values,
            prefix=changes.get("SCRIPT_NAME"),
            changes_more=bool(dropped or replaced) or host is not None or "SCRIPT_NAME" in changes,
            host=None if host is None else host.encode("latin-1"),
            dropped=dropped,
            replaced=replaced,
        )


def admit_by(trust: ProxyTrust | None) -> Callable[[Scope], Scope]:
    """Return the function with which a middleware determines the origin if no outer one has done so.

    Without ``trust``, it trusts no header and changes none.

    Raises:
        ConfigurationError: ``trust`` is not a ``ProxyTrust``.
    """
    if trust is not None:
        return ScopeTrust(instance(trust, ProxyTrust, parameter="trust")).admit

    def resolve(scope: Scope) -> Scope:
        inner = private_scope(scope)
        inner[ORIGIN_KEY] = direct_origin(scope)
        return inner

    return resolve


def direct_origin(scope: Mapping[str, Any], *, host: str | None = None) -> RequestOrigin:
    """Return the origin of a request by its connection alone, as no peer is trusted.

    Args:
        scope: the scope.
        host: field ``Host``, if the caller has read it.
    """
    if host is None:
        host = header(scope, b"host")
    client = scope.get("client")
    question = (
        host,
        client[0] if client else None,
        scope.get("scheme"),
        scope.get("root_path"),
        scope.get("server") if host is None else None,
    )
    try:
        return _DIRECT[question]
    except TypeError:  # a server may send lists instead of tuples, which cannot be looked up
        return _direct_origin(question)


def _direct_origin(question: tuple[Any, ...]) -> RequestOrigin:
    host, *connection = question
    environ = _environ(*connection)
    if host is not None:
        environ["HTTP_HOST"] = host
    return NO_TRUST.resolve(environ)


def _environ(
    peer: str | None, scheme: str | None, root: str | None, server: Sequence[Any] | None
) -> dict[str, Any]:
    environ = {
        "wsgi.url_scheme": "https" if scheme in ("https", "wss") else "http",
        "SCRIPT_NAME": root or "",
    }
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    if server:
        environ["SERVER_NAME"] = str(server[0])
        environ["SERVER_PORT"] = str(server[1] or "")
    return environ


def _watched_key(name: bytes) -> str | None:
    """Return the environ key of a field that matters for the origin, else ``None``."""
    lower = name.lower()
    key = _WATCHED.get(lower)
    if key is None and b"_" in lower and lower.replace(b"_", b"-") in _WATCHED:
        # Adapters for WSGI applications make the same variable of it as of the field with hyphens.
        return _DROPPED_KEY
    return key


def _plan(names: tuple[bytes, ...]) -> _HeaderSelection:
    lower = [name.lower() for name in names]
    positions = [position for position, name in enumerate(names) if _KEYS[name] is not None]
    return _HeaderSelection(_picker(positions), b"host" in lower)


def _picker(positions: list[int]) -> Callable[[RawHeaders], Lines]:
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda headers: tuple(headers[position] for position in positions)


def _rewritten(headers: RawHeaders, decision: _ScopeChanges) -> RawHeaders:
    """Return the header list that the application sees; a value from several lines stays in one."""
    rewritten: RawHeaders = []
    done: set[str] = set()
    new = {**decision.replaced, **({} if decision.host is None else {"HTTP_HOST": decision.host})}
    for name, value in headers:
        key = _KEYS[name]
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


_KEYS: Final[Memo[bytes, str | None]] = Memo(_watched_key, entries=1024, longest=64)
_DIRECT: Final[Memo[tuple[Any, ...], RequestOrigin]] = Memo(_direct_origin, longest=1024)

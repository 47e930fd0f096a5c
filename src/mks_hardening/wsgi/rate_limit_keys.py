"""Whom a request counts for: ready keys for ``RateLimitRule``, alone or together.

A header is whatever the client writes, so a rule by header belongs behind whatever checks it, or beside a rule by
address. ``RateLimitMiddleware`` refuses it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from mks_hardening._core.checks import flag, function
from mks_hardening._core.origin.proxy_trust import client_key, request_origin
from mks_hardening._core.web.environ_keys import SESSION_KEY
from mks_hardening.exceptions import ConfigurationError

__all__ = ["limit_by_address", "limit_by_all", "limit_by_header", "limit_by_user"]

LimitKey = Callable[[dict[str, Any]], str | None]
"""Takes the WSGI environ and says whom to count for; ``None`` where the rule does not apply."""

_IN_NAME: Final = frozenset("!#$%&'*+-.^_`|~")
_WITHOUT_PREFIX: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")


def limit_by_address(environ: dict[str, Any]) -> str | None:
    """The client's address (IPv6: its /64 network), as the trust settings decide it."""
    return client_key(request_origin(environ).client_ip)


def limit_by_user(environ: dict[str, Any]) -> str | None:
    """The user of the session, or ``REMOTE_USER``; the client's address where nobody has signed in.

    The wrapper for limits must stand inside the one for sessions, or behind a server that names the user;
    ``harden_wsgi`` counts before the session is looked up, and refuses such a rule.
    """
    user = getattr(environ.get(SESSION_KEY), "user_id", None) or environ.get("REMOTE_USER")
    return f"user:{user}" if user else limit_by_address(environ)


def limit_by_header(name: str, *, verified: bool = False) -> LimitKey:
    """The value of a header field, an API key for example, as a digest; the client's address where there is none.

    Args:
        name: of the field.
        verified: something outside refuses values that it does not know. Otherwise a client sends another value
            with each request and is never refused, so another rule has to count the same requests by address.

    Raises:
        ConfigurationError: no name of a field (RFC 9110, 5.1).
    """
    if (
        not isinstance(name, str)
        or not name
        or not all(c.isascii() and (c.isalnum() or c in _IN_NAME) for c in name)
    ):
        raise ConfigurationError("name must be the name of a header field", parameter="name")
    variable = name.upper().replace("-", "_")
    if variable not in _WITHOUT_PREFIX:
        variable = f"HTTP_{variable}"

    return _Header(variable, flag(verified, parameter="verified"))


def limit_by_all(*keys: LimitKey) -> LimitKey:
    """Several keys as one: each combination counts for itself, and not at all where one of them says ``None``.

    Args:
        keys: at least two.

    Raises:
        ConfigurationError: fewer, or something that cannot be called.
    """
    if len(keys) < 2:
        raise ConfigurationError("keys must be at least two", parameter="keys")
    for key in keys:
        function(key, parameter="keys")

    return _All(keys)


def counts_by_user(key: LimitKey) -> bool:
    """Whether ``limit_by_user`` is the key, or a part of it."""
    return any(part is limit_by_user for part in _parts_of(key))


def counts_by_header(key: LimitKey) -> bool:
    """Whether the client can choose the key, or a part of it, by a header that nothing checks."""
    return any(isinstance(part, _Header) and not part.verified for part in _parts_of(key))


def _parts_of(key: LimitKey) -> Iterator[LimitKey]:
    if isinstance(key, _All):
        for part in key.keys:
            yield from _parts_of(part)
    else:
        yield key


@dataclass(frozen=True, slots=True)
class _Header:
    """See ``limit_by_header``."""

    variable: str
    verified: bool

    def __call__(self, environ: dict[str, Any]) -> str | None:
        value: str = environ.get(self.variable, "")
        if not value:
            return limit_by_address(environ)
        return "header:" + sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _All:
    """See ``limit_by_all``."""

    keys: tuple[LimitKey, ...]

    def __call__(self, environ: dict[str, Any]) -> str | None:
        parts: list[str] = []
        for key in self.keys:
            part = key(environ)
            if part is None:
                return None
            parts.append(f"{len(part)}:{part}")  # so that no two combinations read alike
        return ",".join(parts)

"""Keys for ``RateLimitRule``: what requests are counted by, alone or in combination.

The client chooses the value of a header. Use a rule by header only behind something that verifies the header, or
together with a rule by address; ``RateLimitMiddleware`` rejects it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from mks_hardening._core.checks import boolean, function
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.origin.proxy_trust import client_key
from mks_hardening._core.web.environ_keys import SESSION_KEY
from mks_hardening._core.web.request_header import request_header
from mks_hardening.exceptions import ConfigurationError

__all__ = ["limit_by_address", "limit_by_all", "limit_by_header", "limit_by_user"]

LimitKey = Callable[[dict[str, Any]], str | None]
"""Takes the WSGI environ or ASGI scope and returns the key to count by; ``None`` if the rule does not apply."""

_IN_NAME: Final = frozenset("!#$%&'*+-.^_`|~")


def limit_by_address(request: dict[str, Any]) -> str | None:
    """Count by client address (IPv6: its /64 network), as determined by the trust settings."""
    return client_key(request_origin(request).client_ip)


def limit_by_user(request: dict[str, Any]) -> str | None:
    """Count by the user of the session, or ``REMOTE_USER``; by client address for requests without a user.

    The rate-limit middleware must be inside the session middleware, or behind a server that sets ``REMOTE_USER``.
    ``harden_wsgi`` counts before the session is looked up, and rejects such a rule.
    """
    user = getattr(request.get(SESSION_KEY), "user_id", None) or request.get("REMOTE_USER")
    return f"user:{user}" if user else limit_by_address(request)


def limit_by_header(name: str, *, verified: bool = False) -> LimitKey:
    """Count by the digest of a header field, for example an API key; by client address if the field is missing.

    Args:
        name: name of the header field.
        verified: whether something in front of the application refuses unknown values. Otherwise a client that
            sends a new value with each request is never refused, so another rule must count the same requests by
            address.

    Raises:
        ConfigurationError: ``name`` is not a valid field name (RFC 9110, 5.1).
    """
    if (
        not isinstance(name, str)
        or not name
        or not all(c.isascii() and (c.isalnum() or c in _IN_NAME) for c in name)
    ):
        raise ConfigurationError("name must be the name of a header field", parameter="name")
    return _Header(name, boolean(verified, parameter="verified"))


def limit_by_all(*keys: LimitKey) -> LimitKey:
    """Combine several keys: each combination is counted separately, and not at all if one key is ``None``.

    Args:
        keys: at least two keys.

    Raises:
        ConfigurationError: fewer than two keys, or one that is not callable.
    """
    if len(keys) < 2:
        raise ConfigurationError("keys must contain at least two functions", parameter="keys")
    for key in keys:
        function(key, parameter="keys")

    return _All(keys)


def counts_by_user(key: LimitKey) -> bool:
    """Return whether the key is ``limit_by_user`` or contains it."""
    return any(part is limit_by_user for part in _parts_of(key))


def counts_by_header(key: LimitKey) -> bool:
    """Return whether the key is, or contains, a header that nothing verifies."""
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

    name: str
    verified: bool

    def __call__(self, request: dict[str, Any]) -> str | None:
        value = request_header(request, self.name)
        if not value:
            return limit_by_address(request)
        return "header:" + sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class _All:
    """See ``limit_by_all``."""

    keys: tuple[LimitKey, ...]

    def __call__(self, request: dict[str, Any]) -> str | None:
        parts: list[str] = []
        for key in self.keys:
            part = key(request)
            if part is None:
                return None
            parts.append(f"{len(part)}:{part}")  # the length prefix keeps combinations distinct
        return ",".join(parts)

"""Secrets that sign stored data, as callers give them: the first one signs, all are accepted (rotation)."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from mks_hardening.exceptions import ConfigurationError

__all__ = ["signing_secrets"]

_SHORTEST_SECRET: Final = 16


def signing_secrets(keys: Iterable[str | bytes] | None) -> tuple[bytes, ...]:
    """Return keys for a MAC with BLAKE2b, 64 bytes each; an empty tuple if there are no keys.

    Raises:
        ConfigurationError: a key is too short or has the wrong type, or the list is empty.
    """
    if keys is None:
        return ()
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise ConfigurationError(
            "signing_keys must be a list of secrets, not one string", parameter="signing_keys"
        )
    secrets = tuple(map(_secret, keys))
    if not secrets:
        raise ConfigurationError("signing_keys must contain at least one key", parameter="signing_keys")
    return secrets


def _secret(key: str | bytes) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    if not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"signing_keys must be secrets of at least {_SHORTEST_SECRET} bytes", parameter="signing_keys"
        )
    return blake2b(secret).digest()  # of the length that the MAC requires, whatever the length of the secret

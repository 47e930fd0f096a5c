"""Remembered devices: a signed token in a cookie, and a list for the owner, who can revoke each device.

A device on which the owner has signed in has its own failure limit, so that guesses of strangers do not
lock the owner out (OWASP, device cookies). A token is bound to the account and its stamp: changing the password
voids it. It contains a digest of both, so that it fits into a cookie whatever the length of the application's
ids. The signature is checked before the list: a token that we did not sign causes no read of the store.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.environment.secret_keys import KEY_BYTES, is_guessable, key_from_base64
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.sign_in._one_time_tokens import digest_of, numbers_of

if TYPE_CHECKING:
    from mks_hardening._core.operations import Op
    from mks_hardening.security.sign_in._one_time_tokens import OneTimeTokens
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount

__all__ = ["DeviceToken", "DeviceTokens"]

# Digest, time, nonce and signature are 137 characters together.
_LONGEST: Final = 256
_MOST: Final = 20  # devices of one account; the oldest is dropped first
_PURPOSE: Final = b"mks_hardening sign-in device 2"


class DeviceToken(NamedTuple):
    """Content of a token with a valid signature."""

    owner: str
    nonce: str

    def fits(self, account: SignInAccount) -> bool:
        """Return whether it was issued for this account under its current password."""
        return self.owner == _owner(account)


class DeviceTokens:
    """Issue and read tokens; the first key signs, all keys verify.

    Without keys no device is remembered.
    """

    __slots__ = ("_entries", "_keys", "_ttl")

    def __init__(
        self, keys: bytes | str | Sequence[bytes | str], *, ttl: float, entries: OneTimeTokens
    ) -> None:
        given: object = [keys] if isinstance(keys, (bytes, str)) else keys
        if not isinstance(given, Sequence):
            raise ConfigurationError(
                f"device_keys must be a key or a list of keys, not {type(given).__name__}",
                parameter="device_keys",
            )
        # Derived for this purpose only: the application may sign other data with the same secret, and none of it
        # must pass for a device token.
        self._keys = [hmac.digest(_key_bytes(key), _PURPOSE, "sha256") for key in given]
        self._ttl = ttl
        self._entries = entries

    @property
    def ttl(self) -> float:
        """How long a device is remembered, in seconds."""
        return self._ttl

    def issue(self, account: SignInAccount, *, now: float) -> Op[str | None]:
        """Issue a token for the device of a user who has just signed in."""
        if not self._keys:
            return None
        # The nonce distinguishes the devices of an account: each has its own failure limit.
        owner, nonce, issued = _owner(account), secrets.token_hex(8), int(now)

        def add(facts: dict[str, object]) -> dict[str, object]:
            listed = {**self._listed(facts, owner, now), nonce: issued}
            latest = sorted(listed.items(), key=lambda item: item[1])[-_MOST:]
            return {"owner": owner, "devices": dict(latest)}

        yield from self._entries.change(_key(account.user_id), add, ttl=self._ttl)
        body = f"{owner}.{issued}.{nonce}"
        return f"{body}.{_signed(self._keys[0], body)}"

    def is_remembered(self, token: DeviceToken | None, account: SignInAccount) -> Op[bool]:
        """Return whether the device belongs to this account and has not been revoked."""
        if token is None or not token.fits(account):
            return False
        facts = yield from self._entries.read_facts(_key(account.user_id))
        return token.nonce in self._listed(facts, token.owner, 0.0)

    def list_devices(self, account: SignInAccount, *, now: float) -> Op[dict[str, int]]:
        """Return when each device was remembered, by its nonce."""
        facts = yield from self._entries.read_facts(_key(account.user_id))
        return self._listed(facts, _owner(account), now)

    def forget(self, user_id: str, *nonces: str) -> Op[int]:
        """Revoke these devices, or all if no nonce is given; return their number."""
        removed = 0

        def remove(facts: dict[str, object]) -> dict[str, object]:
            nonlocal removed
            listed = numbers_of(facts.get("devices"))
            kept = {nonce: issued for nonce, issued in listed.items() if nonces and nonce not in nonces}
            removed = len(listed) - len(kept)
            return {**facts, "devices": kept}

        if (yield from self._entries.read_facts(_key(user_id))):
            yield from self._entries.change(_key(user_id), remove, ttl=self._ttl)
        return removed

    def _listed(self, facts: dict[str, object], owner: str, now: float) -> dict[str, int]:
        """Return the devices of an account under its current stamp that have not expired."""
        if facts.get("owner") != owner:
            return {}
        listed = numbers_of(facts.get("devices"))
        return {nonce: issued for nonce, issued in listed.items() if now - issued < self._ttl}

    def read(self, token: object, *, now: float) -> DeviceToken | None:
        """Return the content of a token, or ``None`` if it is forged, damaged, expired or not a token."""
        # Before any hashing: a client may send a cookie of any length, and compare_digest refuses non-ASCII text.
        if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
            return None
        body, _, signature = token.rpartition(".")
        if not any(hmac.compare_digest(_signed(key, body), signature) for key in self._keys):
            return None
        # Parsed only after the signature check: what we signed has three parts.
        owner, issued, nonce = body.split(".")
        # A token from the future was signed by a wrong clock and must not live longer than others.
        return DeviceToken(owner, nonce) if -60 <= now - int(issued) < self._ttl else None


def _key(user_id: str) -> str:
    return f"devices:{digest_of(user_id)}"


def _signed(key: bytes, body: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, body.encode("ascii"), "sha256")).decode("ascii")


def _owner(account: SignInAccount) -> str:
    return digest_of(account.user_id, account.stamp)


def _key_bytes(key: object) -> bytes:
    material = key_from_base64(key) if isinstance(key, str) else key if isinstance(key, bytes) else None
    if material is None or len(material) != KEY_BYTES or is_guessable(material):
        raise ConfigurationError(
            f"device_keys must contain keys of {KEY_BYTES} random bytes, or their base64",
            parameter="device_keys",
        )
    return material

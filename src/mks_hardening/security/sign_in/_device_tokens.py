"""Remembered devices: a signed token in a cookie, and a list for their owner, by which each can be revoked.

A device on which the owner has signed in has a failure budget of its own, so that guesses of strangers do not lock
the owner out (OWASP, device cookies). A token is bound to the account and its stamp: a changed password ends it. It
holds a digest of both, so that it fits a cookie however long an application's ids are. The signature is checked
before the list: what no key of ours has signed costs no read of the store.
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

__all__ = ["DeviceMark", "DeviceTokens"]

# Digest, moment, nonce and signature come to 137.
_LONGEST: Final = 256
_MOST: Final = 20  # devices of one account; the oldest goes first
_PURPOSE: Final = b"mks_hardening sign-in device 2"


class DeviceMark(NamedTuple):
    """What a token says, once its signature holds."""

    owner: str
    nonce: str

    def fits(self, account: SignInAccount) -> bool:
        """Whether it was issued for this account, under its present password."""
        return self.owner == _owner(account)


class DeviceTokens:
    """Issues and reads tokens; the first key signs, all verify. Without keys no device is remembered."""

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
        # Derived for this purpose alone: the same secret may sign other things elsewhere, and none of them can
        # pass for a device.
        self._keys = [hmac.digest(_key_bytes(key), _PURPOSE, "sha256") for key in given]
        self._ttl = ttl
        self._entries = entries

    @property
    def ttl(self) -> float:
        """Seconds for which a device is remembered."""
        return self._ttl

    def issue(self, account: SignInAccount, *, now: float) -> Op[str | None]:
        """A token for the device of somebody who has just signed in."""
        if not self._keys:
            return None
        # The nonce tells devices of one account apart: each has its own budget for guesses.
        owner, nonce, issued = _owner(account), secrets.token_hex(8), int(now)

        def add(facts: dict[str, object]) -> dict[str, object]:
            listed = {**self._listed(facts, owner, now), nonce: issued}
            latest = sorted(listed.items(), key=lambda item: item[1])[-_MOST:]
            return {"owner": owner, "devices": dict(latest)}

        yield from self._entries.change(_key(account.user_id), add, ttl=self._ttl)
        body = f"{owner}.{issued}.{nonce}"
        return f"{body}.{_signed(self._keys[0], body)}"

    def knows(self, mark: DeviceMark | None, account: SignInAccount) -> Op[bool]:
        """Whether the device is one of this account's, and has not been revoked."""
        if mark is None or not mark.fits(account):
            return False
        facts = yield from self._entries.peek(_key(account.user_id))
        return mark.nonce in self._listed(facts, mark.owner, 0.0)

    def of(self, account: SignInAccount, *, now: float) -> Op[dict[str, int]]:
        """When each device was remembered, by its nonce."""
        facts = yield from self._entries.peek(_key(account.user_id))
        return self._listed(facts, _owner(account), now)

    def forget(self, user_id: str, *nonces: str) -> Op[int]:
        """Revoke these devices, or all; how many there were."""
        removed = 0

        def remove(facts: dict[str, object]) -> dict[str, object]:
            nonlocal removed
            listed = numbers_of(facts.get("devices"))
            kept = {nonce: issued for nonce, issued in listed.items() if nonces and nonce not in nonces}
            removed = len(listed) - len(kept)
            return {**facts, "devices": kept}

        if (yield from self._entries.peek(_key(user_id))):
            yield from self._entries.change(_key(user_id), remove, ttl=self._ttl)
        return removed

    def _listed(self, facts: dict[str, object], owner: str, now: float) -> dict[str, int]:
        """The devices of an account under its present stamp that have not expired."""
        if facts.get("owner") != owner:
            return {}
        listed = numbers_of(facts.get("devices"))
        return {nonce: issued for nonce, issued in listed.items() if now - issued < self._ttl}

    def read(self, token: object, *, now: float) -> DeviceMark | None:
        """What a token says, unless it is forged, damaged, expired or none."""
        # Before any hashing, as anybody may send a cookie of any length; compare_digest refuses text that is not
        # ASCII.
        if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
            return None
        body, _, signature = token.rpartition(".")
        if not any(hmac.compare_digest(_signed(key, body), signature) for key in self._keys):
            return None
        # Parsed only once the signature holds: what we signed has three parts.
        owner, issued, nonce = body.split(".")
        # A device from the future was signed by a clock that was wrong; it must not live longer than others.
        return DeviceMark(owner, nonce) if -60 <= now - int(issued) < self._ttl else None


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
            f"device_keys must hold keys of {KEY_BYTES} random bytes, or their base64",
            parameter="device_keys",
        )
    return material

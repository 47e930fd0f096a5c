"""Encryption of secrets at rest: AES-256-GCM, bound to owner and purpose, with key rotation."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import text_of
from mks_hardening._core.environment.secret_keys import KEY_BYTES, is_guessable, key_from_base64
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError, DecodeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SecretBox"]

# Prefix of every ciphertext, and authenticated with it, so that a future scheme can be recognised without
# guessing.
_VERSION: Final = "1"
# 96 bits, as recommended for GCM: a nonce of another length is hashed first and may collide (NIST SP 800-38D,
# 7.1).
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class SecretBox:
    """Encrypt small secrets so that a ciphertext is valid only for its own user and purpose.

    A ciphertext that is moved to another user's row, or from a pending to an active secret, is refused like a
    damaged one. Nonces are random: one key is good for 2**32 encryptions (NIST SP 800-38D, 8.3). ASVS 5.0,
    11.3.3 and 13.3.4.

    Args:
        keys: one or more keys, each 32 random bytes or their base64; the first encrypts, all decrypt. To
            rotate, append a new key in every process, then move it to the front in every process, run
            ``TwoFactorManager.reencrypt``, and remove the old key.

    Raises:
        ConfigurationError: no key, a key that is not 32 bytes, the same key twice, or a first key that looks
            typed instead of random, so that it could be guessed; to replace such a key, insert a new one in
            front of it.
        MissingDependencyError: cryptography is not installed.
    """

    __slots__ = ("_ciphers", "_primary")

    def __init__(self, keys: bytes | str | Sequence[bytes | str]) -> None:
        with optional("cryptography", extra="security"):
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        given: object = [keys] if isinstance(keys, (bytes, str)) else keys
        if not isinstance(given, Sequence):
            raise ConfigurationError(
                f"keys must be a key or a list of keys, not {type(given).__name__}", parameter="keys"
            )
        materials = [_key_bytes(key) for key in given]
        if not materials or len(set(materials)) != len(materials):
            raise ConfigurationError("keys must contain at least one key and no duplicates", parameter="keys")
        if is_guessable(materials[0]):
            raise ConfigurationError(
                "keys must begin with a key of random bytes; make one with SecretBox.generate_key(), and put it in "
                "front of this one",
                parameter="keys",
            )
        self._ciphers: dict[str, AESGCM] = {
            # Every ciphertext contains an id derived from its key, which reveals nothing about the key. The
            # encryption key is another derivation, so that a key that is also used elsewhere stays separate.
            _derive_key(material, b"id")[:6].hex(): AESGCM(_derive_key(material, b"encryption"))
            for material in materials
        }
        self._primary = next(iter(self._ciphers))

    @staticmethod
    def generate_key() -> str:
        """Return a new random key in base64, for an environment variable or a secret file."""
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii")

    def encrypt(self, plaintext: str, *, user_id: str, purpose: str) -> str:
        """Return the ciphertext, as ASCII text ``version.key-id.base64``.

        Raises:
            ConfigurationError: a value is not a string, or the plaintext cannot be encoded as UTF-8.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            content = text_of(plaintext, parameter="plaintext").encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigurationError("plaintext must be encodable as UTF-8", parameter="plaintext") from None
        bound_to = _associated_data(self._primary, user_id, purpose)
        sealed = nonce + self._ciphers[self._primary].encrypt(nonce, content, bound_to)
        return f"{_VERSION}.{self._primary}.{base64.urlsafe_b64encode(sealed).decode('ascii')}"

    def decrypt(self, ciphertext: str, *, user_id: str, purpose: str) -> str:
        """Return the plaintext.

        Raises:
            DecodeError: damaged, forged, encrypted for another user or purpose, or with a key that was not given.
        """
        from cryptography.exceptions import InvalidTag

        key_id, sealed = _parse_ciphertext(ciphertext)
        # Looked up instead of trying all keys: an error names the missing key instead of reporting damage.
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecodeError(
                f"the ciphertext requires the key with id {key_id}, which is not among the keys given"
            )
        try:
            plaintext = cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _associated_data(key_id, user_id, purpose)
            )
        except InvalidTag:
            raise DecodeError("the ciphertext is damaged, or was made for another user or purpose") from None
        return plaintext.decode("utf-8")

    def needs_rotation(self, ciphertext: str) -> bool:
        """Return whether the ciphertext was encrypted with a key other than the first.

        Raises:
            DecodeError: not a ciphertext of a ``SecretBox``.
        """
        return _parse_ciphertext(ciphertext)[0] != self._primary

    def __repr__(self) -> str:
        return f"SecretBox(primary={self._primary}, keys={len(self._ciphers)})"


def _key_bytes(key: object) -> bytes:
    material = key_from_base64(key) if isinstance(key, str) else key if isinstance(key, bytes) else None
    if material is None or len(material) != KEY_BYTES:
        raise ConfigurationError(
            f"keys must be {KEY_BYTES} bytes or their base64; got a {type(key).__name__} that is not. "
            "Make one with SecretBox.generate_key()",
            parameter="keys",
        )
    return material


def _derive_key(material: bytes, use: bytes) -> bytes:
    return hmac.digest(material, b"mks_hardening.secret_box." + use, "sha256")


def _associated_data(key_id: str, user_id: str, purpose: str) -> bytes:
    """Return the associated data, with length prefixes, so that no two inputs share one encoding."""
    owner, use = text_of(user_id, parameter="user_id"), text_of(purpose, parameter="purpose")
    parts = (_VERSION, key_id, owner, use)
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _parse_ciphertext(ciphertext: str) -> tuple[str, bytes]:
    version, _, rest = text_of(ciphertext, parameter="ciphertext").partition(".")
    key_id, _, body = rest.partition(".")
    if version != _VERSION:
        # After a roll-back an operator has to know whether a newer release wrote it.
        newer = len(version) < 4 and version.isascii() and version.isdigit() and int(version) > int(_VERSION)
        raise DecodeError("this is not a ciphertext of this version", newer=newer)
    try:
        # validate: without it b64decode skips foreign characters, so that one ciphertext has many spellings.
        sealed = base64.b64decode(body, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        sealed = b""
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise DecodeError("the ciphertext is damaged")
    return key_id, sealed

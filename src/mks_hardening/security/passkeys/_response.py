"""Parser of browser responses: limits sizes and checks types, verifies nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

__all__ = ["PasskeyResponse", "base64url", "challenge_key", "credential_key", "read_response"]

_LONGEST: Final = 65_536
_LONGEST_ID: Final = 1023  # bytes; WebAuthn level 3, section 7.1, step 25
_TRANSPORTS: Final = ("usb", "nfc", "ble", "smart-card", "hybrid", "internal")


class PasskeyResponse(NamedTuple):
    """Parsed parts of a browser response.

    Attributes:
        credential: id of the credential, in base64url.
        challenge: the challenge it responds to, as sent by the browser.
        cross_origin: the page was inside another site's page.
        user_handle: the owner according to a discoverable credential.
        transports: how the authenticator may be reached, limited to known values.
        fields: the fields for the package webauthn.
    """

    credential: str
    challenge: bytes
    cross_origin: bool
    user_handle: str | None
    transports: tuple[str, ...]
    fields: dict[str, object]


def read_response(answer: object, *, body: tuple[str, ...]) -> PasskeyResponse | None:
    """Return the parts of a browser response, or ``None`` if it is malformed.

    Args:
        answer: the response as JSON text, or as parsed data.
        body: names of the required fields of ``response``.
    """
    try:
        whole = _mapping(
            json.loads(answer) if isinstance(answer, str) and len(answer) <= _LONGEST else answer
        )
        response = _mapping(whole["response"])
        parts = {name: _text(response[name]) for name in body}
        client_data = _mapping(json.loads(_bytes(parts["clientDataJSON"])))
        credential = _text(whole["id"])
        # id and rawId are the same value: if they differed, two parts of a system could check different
        # credentials.
        if not 0 < len(_bytes(credential)) <= _LONGEST_ID or whole["rawId"] != credential:
            return None
        # Decoded only to check that the verifier gets canonical base64url.
        for part in parts.values():
            _bytes(part)
        handle = response.get("userHandle") or None
        if handle is not None:
            _bytes(_text(handle))
        transports = response.get("transports")
        return PasskeyResponse(
            credential=credential,
            challenge=_bytes(_text(client_data["challenge"])),
            cross_origin=client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data,
            user_handle=None if handle is None else _text(handle),
            transports=tuple(
                word for word in _TRANSPORTS if isinstance(transports, list) and word in transports
            ),
            fields={"id": credential, "rawId": credential, "type": whole["type"], "response": parts},
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def base64url(data: bytes) -> str:
    """Encode as base64url without padding, as WebAuthn does in JSON."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def challenge_key(challenge: bytes) -> str:
    """Return the key of a challenge in the store.

    A digest, so that nobody who reads the store can respond to the challenge.
    """
    return hashlib.sha256(challenge).hexdigest()


def credential_key(credential: str) -> str:
    """Return the key of a credential's owner in the store.

    A digest, because ids may be 1023 bytes long.
    """
    return hashlib.sha256(credential.encode("ascii", "replace")).hexdigest()


def _bytes(text: str) -> bytes:
    """Decode canonical base64url: no padding, no foreign characters, no stray bits."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError from None
    if base64url(data) != text:
        raise ValueError
    return data


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError
    return cast(Mapping[str, object], value)

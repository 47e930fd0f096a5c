"""What passkeys are asked with and answered by: plain values that do not print challenges or signatures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Passkey", "PasskeyAssertion", "PasskeyOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyOptions:
    """What a page hands to the browser.

    Attributes:
        public_key: data for ``PublicKeyCredential.parseCreationOptionsFromJSON``, or for an assertion
            ``parseRequestOptionsFromJSON``.
        expires_at: wall time until which the answer is taken.
    """

    public_key: Mapping[str, object] = field(repr=False)
    expires_at: float

    @property
    def json(self) -> str:
        """``public_key`` as JSON. Answer with ``Cache-Control: no-store``."""
        return json.dumps(self.public_key)


class PasskeyAssertion(str):
    """An answer of ``navigator.credentials.get()``, wherever a code is taken: the JSON, and where it was asked for.

    Args:
        response: ``credential.toJSON()`` of the browser, as JSON text or as data.
        session: the session in which ``begin_verification`` was called.

    Attributes:
        session: the same.
    """

    __slots__ = ("session",)

    def __new__(cls, response: str | Mapping[str, object], *, session: str) -> Self:
        """The text, with its session beside it."""
        assertion = super().__new__(cls, response if isinstance(response, str) else _json_of(response))
        assertion.session = session
        return assertion

    session: str

    def __repr__(self) -> str:
        return f"PasskeyAssertion({len(self)} characters)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A passkey, as its owner sees it in a list.

    Attributes:
        id: for ``rename`` and ``revoke``.
        name: what the owner calls it; may be empty.
        created_at: wall time.
        used_at: wall time of its last use; ``None`` before the first.
        synced: its maker may copy it to other devices.
        backed_up: at its last use a copy existed elsewhere, so that losing one device does not lose it.
        user_verified: it has verified its user (fingerprint, face, PIN), so that it may be a whole sign-in.
        aaguid: the model of the authenticator, as it says itself; all zero when it does not.
    """

    id: str
    name: str
    created_at: float
    used_at: float | None
    synced: bool
    backed_up: bool
    user_verified: bool
    aaguid: str


def _json_of(data: object) -> str:
    """Empty, and so malformed, where this never came from JSON."""
    try:
        return json.dumps(data)
    except (TypeError, ValueError, RecursionError):
        return ""

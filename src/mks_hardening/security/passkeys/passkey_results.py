"""Options, assertions and list entries of passkeys, whose ``repr`` hides challenges and signatures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Passkey", "PasskeyAssertion", "PasskeyOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyOptions:
    """Options that a page passes to the browser.

    Attributes:
        public_key: data for ``PublicKeyCredential.parseCreationOptionsFromJSON``, or for an assertion
            ``parseRequestOptionsFromJSON``.
        expires_at: wall time until which the response is accepted.
    """

    public_key: Mapping[str, object] = field(repr=False)
    expires_at: float

    @property
    def json(self) -> str:
        """``public_key`` as JSON. Send it with ``Cache-Control: no-store``."""
        return json.dumps(self.public_key)


class PasskeyAssertion(str):
    """A response of ``navigator.credentials.get()``, accepted in place of a code: its JSON, and its session.

    Args:
        response: ``credential.toJSON()`` of the browser, as JSON text or as data.
        session: the session in which ``begin_verification`` was called.

    Attributes:
        session: as given.
    """

    __slots__ = ("session",)

    def __new__(cls, response: str | Mapping[str, object], *, session: str) -> Self:
        """Create the text, with its session as an attribute."""
        assertion = super().__new__(cls, response if isinstance(response, str) else _json_of(response))
        assertion.session = session
        return assertion

    session: str

    def __repr__(self) -> str:
        return f"PasskeyAssertion({len(self)} characters)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A passkey, as shown to its owner in a list.

    Attributes:
        id: for ``rename`` and ``revoke``.
        name: the owner's name for it; may be empty.
        created_at: wall time.
        used_at: wall time of its last use; ``None`` before the first.
        synced: whether its provider may copy it to other devices.
        backed_up: at its last use a copy existed elsewhere, so that losing one device does not lose it.
        user_verified: it has verified its user (fingerprint, face, PIN), so that it may be a whole sign-in.
        aaguid: the model of the authenticator, as reported by itself; all zero if it does not report one.
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
    """Encode as JSON; return an empty string, which is malformed, for data that did not come from JSON."""
    try:
        return json.dumps(data)
    except (TypeError, ValueError, RecursionError):
        return ""

"""Session ids and values derived from them."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

__all__ = [
    "ID_LENGTH",
    "csrf_token_of",
    "is_anonymous_id",
    "key_of",
    "new_anonymous_id",
    "new_anonymous_owner",
    "new_id",
    "user_id_of_owner",
]

_ID_BYTES: Final = 32
ID_LENGTH: Final = 43  # 32 bytes in base64 without padding
# Prefix of the id of an anonymous session, so that its cookie is recognized after the store has forgotten it. A
# client that forges it is treated as if it had sent no cookie.
_ANONYMOUS: Final = "~"
# Prefix of the owner of an anonymous session; no user id begins with it.
_NOBODY: Final = "\x1f"


def new_id() -> str:
    """Return a new session id: 256 random bits (ASVS 7.2.3)."""
    return secrets.token_urlsafe(_ID_BYTES)


def new_anonymous_id() -> str:
    """Return a new id for an anonymous session."""
    return _ANONYMOUS + new_id()


def is_anonymous_id(session_id: str) -> bool:
    """Return whether the id has the form of ``new_anonymous_id``."""
    return len(session_id) == ID_LENGTH + 1 and session_id.startswith(_ANONYMOUS)


def new_anonymous_owner() -> str:
    """Return a unique owner for an anonymous session, so that the lists by user stay short."""
    return _NOBODY + secrets.token_urlsafe(12)


def user_id_of_owner(user_id: str) -> str | None:
    """Return the user id, or ``None`` for an owner from ``new_anonymous_owner``."""
    return None if user_id.startswith(_NOBODY) else user_id


def key_of(session_id: str) -> str:
    """Return the store key of a session: a hash, so that a copy of the store gives no access (ASVS 11.5.1)."""
    return sha256(session_id.encode()).hexdigest()


def csrf_token_of(session_id: str) -> str:
    """Derive a CSRF secret for forms, from which the session id cannot be computed."""
    digest = hmac.digest(session_id.encode(), b"mks_hardening csrf token", "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()

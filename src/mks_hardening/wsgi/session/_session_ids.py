"""Session ids, and what is derived from them."""

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
    "new_id",
    "new_owner",
    "owner_known",
]

_ID_BYTES: Final = 32
ID_LENGTH: Final = 43  # of 32 bytes in base64 without padding
# In front of the id of a session that is nobody's, so that its cookie is known for one when the store has forgotten
# it. Whoever forges it gets what a request without a cookie gets.
_ANONYMOUS: Final = "~"
# In front of what such a session has for a user; no user id begins with it.
_NOBODY: Final = "\x1f"


def new_id() -> str:
    """256 random bits (ASVS 7.2.3)."""
    return secrets.token_urlsafe(_ID_BYTES)


def new_anonymous_id() -> str:
    """The same for a session that is nobody's."""
    return _ANONYMOUS + new_id()


def is_anonymous_id(session_id: str) -> bool:
    """Whether it has the form of ``new_anonymous_id``."""
    return len(session_id) == ID_LENGTH + 1 and session_id.startswith(_ANONYMOUS)


def new_owner() -> str:
    """What a session that is nobody's has for a user: its own, so that lists by user stay short."""
    return _NOBODY + secrets.token_urlsafe(12)


def owner_known(user_id: str) -> str | None:
    """The user, or ``None`` for ``new_owner``."""
    return None if user_id.startswith(_NOBODY) else user_id


def key_of(session_id: str) -> str:
    """What a store knows a session by: the hash, so that a copy of the store opens no session (ASVS 11.5.1)."""
    return sha256(session_id.encode()).hexdigest()


def csrf_token_of(session_id: str) -> str:
    """A secret for forms that cannot be worked back to the id."""
    digest = hmac.digest(session_id.encode(), b"mks_hardening csrf token", "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()

"""WebAuthn challenges: random, bound to one purpose, user and session, short-lived, and valid once."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mks_hardening._core.checks import text_of
from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passkeys._response import base64url, challenge_key

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock, PasskeyStore

__all__ = ["Challenges", "IssuedChallenge", "Purpose"]

Purpose = Literal["register", "verify", "sign-in"]

_BYTES: Final = 32
_LONGEST_SESSION: Final = 1024


class IssuedChallenge(NamedTuple):
    """A challenge for a browser.

    Attributes:
        challenge: in base64url.
        expires_at: wall time.
    """

    challenge: str
    expires_at: float


class Challenges:
    """Issue and redeem challenges in a store."""

    __slots__ = ("_clock", "_store", "_ttl")

    def __init__(self, store: PasskeyStore, clock: Clock, *, ttl: float) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl

    def issue(self, purpose: Purpose, *, user_id: str, session: str, note: str = "") -> Op[IssuedChallenge]:
        """Issue a challenge.

        Args:
            purpose: the ceremony it is for.
            user_id: the user it is for; empty if the user is not known yet.
            session: the session that the response must come from.
            note: returned when the challenge is redeemed.
        """
        challenge = secrets.token_bytes(_BYTES)
        expires_at = self._clock.time() + self._ttl
        # With its expiry time, because a store may keep it for longer than ``ttl``.
        data = json.dumps([purpose, user_id, _digest(_binding(session)), expires_at, note])
        yield from call_store(
            self._store.save_challenge, challenge_key(challenge), data.encode("ascii"), ttl=self._ttl
        )
        return IssuedChallenge(base64url(challenge), expires_at)

    def redeem(self, challenge: bytes, purpose: Purpose, *, user_id: str, session: str) -> Op[str | None]:
        """Consume a challenge and return its note.

        Returns ``None`` if it was issued for another purpose, user or session, has expired, or does not exist;
        it is consumed nevertheless.
        """
        # Any length is accepted, because the value may come from a cookie: one that was never issued matches
        # nothing, which is not an error of the application.
        wanted = _digest(text_of(session, parameter="session"))
        # Removed before it is checked: even an attempt with the wrong session consumes it.
        data = yield from call_store(self._store.consume_challenge, challenge_key(challenge))
        if data is None:
            return None
        kept: tuple[str, str, str, float, str] = tuple(json.loads(data))
        known_purpose, known_user, known_session, expires_at, note = kept
        fits = (known_purpose, known_user) == (purpose, user_id) and self._clock.time() < expires_at
        return note if fits and hmac.compare_digest(known_session, wanted) else None


def _binding(session: object) -> str:
    """Return a session that a challenge can be bound to.

    Raises:
        ConfigurationError: the session is blank, too long or not a string.
    """
    if not isinstance(session, str) or not session.strip() or len(session) > _LONGEST_SESSION:
        raise ConfigurationError(
            f"session must be a string of 1 to {_LONGEST_SESSION} characters, not blank", parameter="session"
        )
    return session


def _digest(session: str) -> str:
    """Return the digest of a session to store: its id may be all that a thief needs."""
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()

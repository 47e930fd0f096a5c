"""Bearer tokens for API clients: short-lived access tokens, single-use refresh tokens (RFC 9068, RFC 9700)."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, select, update

from knowledge_system.domain.problems import Problem
from knowledge_system.models import RefreshToken, TokenFamily, User
from knowledge_system.services.identity.accounts import actor_of
from knowledge_system.services.identity.user_accounts import account_of
from knowledge_system.services.secret_keys import key_bytes
from knowledge_system.services.transactions import count_changed

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.domain.permissions import Actor
    from mks_hardening.protocols import Clock

ACCESS_SECONDS: Final = 600
_REFRESH_TIME: Final = timedelta(days=14)
_FAMILY_TIME: Final = timedelta(days=90)
_ISSUER: Final = "knowledge-system"
_AUDIENCE: Final = "knowledge-system/api"
_TYPE: Final = "at+jwt"
_ALGORITHM: Final = "HS256"
_SKEW: Final = 60
"""Tolerated clock skew between our own hosts, in seconds."""


class TokenPair(NamedTuple):
    """The tokens issued to a client: both are secret, and neither is stored here."""

    access: str
    refresh: str
    refresh_seconds: int
    family: str


class Bearer(NamedTuple):
    """The user of an access token, and how the user was authenticated."""

    actor: Actor
    family: str
    facts: Mapping[str, Any]
    expires_at: float


class Tokens:
    """Issues, refreshes and validates tokens.

    A refresh token works once. A second use means that it was stolen, and does not reveal which of the two users is
    the thief: the whole family ends (RFC 9700, 4.14.2), including all access tokens, because every request checks
    the family. A family is bound to the password it began with: a password change ends all families at once.

    Args:
        sessions: factory of database sessions.
        reads: factory of sessions that only read.
        keys: secret keys in base64, newest first; without keys, tokens end with the process.
        clock: clock of the application.
        tell: callback for the audit log, with an action, a user id and details.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        *,
        reads: sessionmaker[Session],
        keys: Sequence[str],
        clock: Clock,
        tell: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._sessions = sessions
        self._reads = reads
        self._clock = clock
        self._tell = tell
        derived = key_bytes(keys) or [secrets.token_bytes(32)]
        signing = [hmac.digest(key, b"access tokens of the API", "sha256") for key in derived]
        self._keys = {hashlib.sha256(key).hexdigest()[:16]: key for key in signing}

    def begin(self, user_id: str, facts: Mapping[str, Any]) -> TokenPair:
        """Issue the first tokens after a sign-in.

        Args:
            user_id: user who signed in.
            facts: authentication time and methods, as given by ``SignIn``.
        """
        now = self._now()
        with self._sessions.begin() as session:
            user = session.get_one(User, int(user_id))
            family = TokenFamily(
                id=uuid.uuid4().hex,
                user_id=user.id,
                stamp=_stamp(user),
                facts=json.dumps(dict(facts)),
                created_at=now,
                expires_at=now + _FAMILY_TIME,
            )
            session.add(family)
            session.flush()
            pair = self._pair(session, family)
        self._tell("token.issue", user_id, actor=user_id, program=family.id[:8])
        return pair

    def renew(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token, which is then used up, for new tokens.

        Raises:
            Problem: ``token-refused`` if the token is unknown, expired, revoked or already used; the latter ends
                the family, so a client must not use a refresh token in two concurrent requests.
        """
        digest, now, copied = _digest(refresh_token), self._now(), None
        with self._sessions.begin() as session:
            used = session.execute(
                update(RefreshToken)
                .where(RefreshToken.digest == digest, RefreshToken.used_at.is_(None))
                .values(used_at=now)
                .returning(RefreshToken.family_id, RefreshToken.expires_at)
            ).first()
            if used is None:
                copied = _end_family_of(session, digest, now)
            else:
                found = _living(session, used.family_id, now)
                if found is not None and used.expires_at > now:
                    return self._pair(session, found[0])
        if copied is not None:
            self._tell("token.reuse", str(copied.user_id), program=copied.id[:8])
        raise Problem("token-refused")

    def read(self, access_token: str) -> Bearer:
        """Validate an access token.

        Raises:
            Problem: ``token-refused`` if the token is invalid, expired or revoked.
        """
        claims = self._claims(access_token)
        with self._reads() as session:
            found = _living(session, claims["sid"], self._now())
        if found is None or str(found[1].id) != claims["sub"]:
            raise Problem("token-refused")
        family, user = found
        return Bearer(actor_of(user), family.id, json.loads(family.facts), float(claims["exp"]))

    def prove(self, family_id: str, facts: Mapping[str, Any]) -> bool:
        """Store how the user was re-authenticated; return whether the family is still valid."""
        change = update(TokenFamily).where(TokenFamily.id == family_id, TokenFamily.ended_at.is_(None))
        with self._sessions.begin() as session:
            changed = session.execute(change.values(facts=json.dumps(dict(facts))).returning(TokenFamily.id))
            return changed.first() is not None

    def families(self, user_id: str) -> list[TokenFamily]:
        """Return the active token families of a user."""
        asked = select(TokenFamily, User).join(User, User.id == TokenFamily.user_id)
        living = asked.where(
            TokenFamily.user_id == int(user_id),
            TokenFamily.ended_at.is_(None),
            TokenFamily.expires_at > self._now(),
        ).order_by(TokenFamily.created_at, TokenFamily.id)
        with self._reads() as session:
            return [family for family, user in session.execute(living) if family.stamp == _stamp(user)]

    def end(self, family_id: str) -> None:
        """End one family."""
        with self._sessions.begin() as session:
            owner = session.scalar(select(TokenFamily.user_id).where(TokenFamily.id == family_id))
            _end(session, self._now(), TokenFamily.id == family_id)
        self._tell("token.end", str(owner or ""), actor=str(owner or ""), program=family_id[:8])

    def end_user(self, user_id: str, *, but: str = "") -> None:
        """End all families of a user, except the family ``but``."""
        with self._sessions.begin() as session:
            _end(session, self._now(), TokenFamily.user_id == int(user_id), TokenFamily.id != but)

    def keep_after_new_password(self, family_id: str) -> None:
        """Bind the family that changed the password to the new password; all others end."""
        with self._sessions.begin() as session:
            family = session.get_one(TokenFamily, family_id)
            family.stamp = _stamp(session.get_one(User, family.user_id))

    def _pair(self, session: Session, family: TokenFamily) -> TokenPair:
        now = self._now()
        until = min(now + _REFRESH_TIME, family.expires_at)
        refresh = secrets.token_urlsafe(32)
        session.add(RefreshToken(digest=_digest(refresh), family_id=family.id, expires_at=until))
        seconds = int((until - now).total_seconds())
        return TokenPair(self._access(family, int(now.timestamp())), refresh, seconds, family.id)

    def _access(self, family: TokenFamily, now: int) -> str:
        import jwt  # a tenth of the time of all imports, and only API clients need it

        kid, key = next(iter(self._keys.items()))
        facts = json.loads(family.facts).get("sign_in", {})
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": str(family.user_id),
            "sid": family.id,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + ACCESS_SECONDS,
            "auth_time": facts.get("auth_time", now),
            "amr": facts.get("amr", []),
        }
        return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": kid, "typ": _TYPE})

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != _TYPE:
                raise Problem("token-refused")
            claims: dict[str, Any] = jwt.decode(
                token,
                self._keys[header["kid"]],
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                # Times are checked below, with the application's clock.
                options={
                    "require": ["exp", "iat", "sub", "sid", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise Problem("token-refused") from error
        now = self._clock.time()
        if not isinstance(claims["sid"], str) or not claims["iat"] - _SKEW <= now < claims["exp"]:
            raise Problem("token-refused")
        return claims

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


def remove_expired(session: Session, *, now: datetime) -> int:
    """Delete expired families and their tokens; return the number of families."""
    old = select(TokenFamily.id).where(TokenFamily.expires_at <= now).scalar_subquery()
    session.execute(delete(RefreshToken).where(RefreshToken.family_id.in_(old)))
    return count_changed(session, delete(TokenFamily).where(TokenFamily.expires_at <= now))


def _living(session: Session, family_id: str, now: datetime) -> tuple[TokenFamily, User] | None:
    found = session.execute(
        select(TokenFamily, User)
        .join(User, User.id == TokenFamily.user_id)
        .where(TokenFamily.id == family_id, TokenFamily.ended_at.is_(None), TokenFamily.expires_at > now)
    ).first()
    if found is None:
        return None
    family, user = found
    account = account_of(user)
    if account is None or account.disabled or account.stamp != family.stamp:
        return None
    return family, user


def _end_family_of(session: Session, digest: str, now: datetime) -> TokenFamily | None:
    """End and return the family of a token that was already used; ``None`` if the token is unknown."""
    family = session.scalar(
        select(TokenFamily)
        .join(RefreshToken, RefreshToken.family_id == TokenFamily.id)
        .where(RefreshToken.digest == digest)
    )
    if family is not None:
        _end(session, now, TokenFamily.id == family.id)
    return family


def _end(session: Session, now: datetime, *which: Any) -> None:
    session.execute(update(TokenFamily).where(*which, TokenFamily.ended_at.is_(None)).values(ended_at=now))


def _stamp(user: User) -> str:
    account = account_of(user)
    return account.stamp if account else ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

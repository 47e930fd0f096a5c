"""Bearer token authentication (RFC 6750), and API sign-ins through the session interface of ``SignIn``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import g, request

from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request

if TYPE_CHECKING:
    from knowledge_system.services.identity.api_tokens import Bearer, TokenPair, Tokens

_LONGEST: Final = 4096


class TokenSession:
    """The session interface that ``SignIn`` and the pages use, backed by one token family.

    Args:
        tokens: token service.
        bearer: token of the request; ``None`` before a sign-in.
    """

    def __init__(self, tokens: Tokens, bearer: Bearer | None = None) -> None:
        self._tokens = tokens
        self._bearer = bearer
        self._data: dict[str, Any] = dict(bearer.facts) if bearer else {}
        self.issued: TokenPair | None = None

    @property
    def alive(self) -> bool:
        """Whether the request has a valid token."""
        return self._bearer is not None

    @property
    def user_id(self) -> str | None:
        """The id of the user, as a string."""
        return str(self._bearer.actor.id) if self._bearer else None

    @property
    def reference(self) -> str | None:
        """An identifier of the family that cannot be used as a token."""
        return self._bearer.family if self._bearer else None

    @property
    def data(self) -> Mapping[str, Any]:
        """How the user was authenticated."""
        return self._data

    @property
    def expires_in(self) -> float:
        """Seconds until the access token expires."""
        return (
            max(0.0, self._bearer.expires_at - current_request.services().clock.time())
            if self._bearer
            else 0.0
        )

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        """Issue the first tokens of a family."""
        self.issued = self._tokens.begin(user_id, data)

    def rotate(self) -> bool:
        """Do nothing: access tokens are not subject to session fixation, and refresh tokens work only once."""
        return self.alive

    def update_data(self, **changes: Any) -> bool:
        """Store how the user was re-authenticated; return whether the family is still valid."""
        self._data.update(changes)
        return self._bearer is not None and self._tokens.prove(self._bearer.family, self._data)

    def refresh(self) -> None:
        """Do nothing: the session is extended with a refresh token."""

    def end(self) -> None:
        """End this family; tokens issued during this request are not returned to the client."""
        if self.issued:
            self._tokens.end(self.issued.family)
            self.issued = None
        elif self._bearer:
            self._tokens.end(self._bearer.family)

    def end_others(self) -> int:
        """End all other families and all browser sessions of the user; return the number of browser sessions."""
        if self._bearer is None:
            return 0
        owner = str(self._bearer.actor.id)
        self._tokens.end_user(owner, but=self._bearer.family)
        manager = current_request.services().session_manager
        return int(manager.end_user(owner)) if manager else 0


def authenticate() -> None:
    """Authenticate the request by its bearer token, if it has one; its session cookie is then ignored.

    Raises:
        Problem: ``token-refused``.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return
    g.actor = None  # a malformed header must not fall back on the cookie
    if scheme.lower() != "bearer" or not 0 < len(token) <= _LONGEST or not token.isascii():
        raise Problem("token-refused")
    tokens = current_request.services().tokens
    bearer = tokens.read(token.strip())
    g.session = TokenSession(tokens, bearer)
    g.actor = bearer.actor

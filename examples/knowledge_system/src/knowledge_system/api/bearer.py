"""Who asks with a bearer token (RFC 6750), and the sign-in of a program as a session of the sign-in machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import g, request

from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request

if TYPE_CHECKING:
    from knowledge_system.services.identity.tokens import Bearer, TokenPair, Tokens

__all__ = ["TokenSession", "authenticate"]

_LONGEST: Final = 4096


class TokenSession:
    """What ``SignIn`` and the pages use of a session, over one family of tokens.

    Args:
        tokens: issues them.
        bearer: the token of the request; ``None`` before a sign-in.
    """

    def __init__(self, tokens: Tokens, bearer: Bearer | None = None) -> None:
        self._tokens = tokens
        self._bearer = bearer
        self._data: dict[str, Any] = dict(bearer.facts) if bearer else {}
        self.issued: TokenPair | None = None

    @property
    def alive(self) -> bool:
        """Whether there is one."""
        return self._bearer is not None

    @property
    def user_id(self) -> str | None:
        """Whose it is."""
        return str(self._bearer.actor.id) if self._bearer else None

    @property
    def reference(self) -> str | None:
        """A name for it that opens nothing."""
        return self._bearer.family if self._bearer else None

    @property
    def data(self) -> Mapping[str, Any]:
        """How the owner was authenticated."""
        return self._data

    @property
    def expires_in(self) -> float:
        """Seconds that the access token is good for."""
        return (
            max(0.0, self._bearer.expires_at - current_request.parts().clock.time()) if self._bearer else 0.0
        )

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        """Issue the first tokens of a family."""
        self.issued = self._tokens.begin(user_id, data)

    def rotate(self) -> bool:
        """Nothing to change: an access token cannot be planted on anybody, and a refresh token works once."""
        return self.alive

    def update_data(self, **changes: Any) -> bool:
        """Keep how the owner has proved again who it is; whether the family lives."""
        self._data.update(changes)
        return self._bearer is not None and self._tokens.prove(self._bearer.family, self._data)

    def refresh(self) -> None:
        """Nothing: a refresh token prolongs."""

    def end(self) -> None:
        """Sign this program out; tokens that were issued in this request are not handed out."""
        if self.issued:
            self._tokens.end(self.issued.family)
            self.issued = None
        elif self._bearer:
            self._tokens.end(self._bearer.family)

    def end_others(self) -> int:
        """Sign the owner out everywhere else; how many sessions of browsers that were."""
        if self._bearer is None:
            return 0
        owner = str(self._bearer.actor.id)
        self._tokens.end_user(owner, but=self._bearer.family)
        manager = current_request.parts().session_manager
        return int(manager.end_user(owner)) if manager else 0


def authenticate() -> None:
    """Let the bearer token of this request, if there is one, say who asks; a cookie is not looked at then.

    Raises:
        Problem: ``token-refused``.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        return
    g.actor = None  # a header that cannot be read must not fall back on a cookie
    if scheme.lower() != "bearer" or not 0 < len(token) <= _LONGEST or not token.isascii():
        raise Problem("token-refused")
    tokens = current_request.parts().tokens
    bearer = tokens.read(token.strip())
    g.session = TokenSession(tokens, bearer)
    g.actor = bearer.actor

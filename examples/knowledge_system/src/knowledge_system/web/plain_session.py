"""Fallback if the library's sessions are disabled: Flask's signed cookie, without timeouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import session


class PlainSession:
    """The part of ``mks_hardening.wsgi.SessionHandle`` that the pages use."""

    expires_in: float | None = None
    reference: str | None = None

    @property
    def alive(self) -> bool:
        """Whether a user is signed in."""
        return self.user_id is not None

    @property
    def user_id(self) -> str | None:
        """The id of the signed-in user."""
        return session.get("user_id")

    @property
    def data(self) -> Mapping[str, Any]:
        """Data stored with the session."""
        found: Mapping[str, Any] = session.get("data", {})
        return found

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        """Sign in a user."""
        session.clear()
        session.update(user_id=user_id, data=dict(data))

    def rotate(self) -> bool:
        """Do nothing: there is no session id to change."""
        return self.alive

    def update_data(self, **changes: Any) -> bool:
        """Update the data stored with the session."""
        session["data"] = {**self.data, **changes}
        return self.alive

    def end(self) -> None:
        """Sign out in this browser."""
        session.clear()

    def refresh(self) -> None:
        """Do nothing: the session does not expire."""

    def end_others(self) -> int:
        """Return 0: other sessions are unknown."""
        return 0

"""A stand-in where the library's sessions are switched off: the framework's signed cookie, without any limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import session

__all__ = ["PlainSession"]


class PlainSession:
    """As much of ``mks_hardening.wsgi.SessionHandle`` as the pages use."""

    expires_in: float | None = None
    reference: str | None = None

    @property
    def alive(self) -> bool:
        """Whether somebody is signed in."""
        return self.user_id is not None

    @property
    def user_id(self) -> str | None:
        """Who is signed in."""
        return session.get("user_id")

    @property
    def data(self) -> Mapping[str, Any]:
        """What was kept with the session."""
        found: Mapping[str, Any] = session.get("data", {})
        return found

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        """Sign a user in."""
        session.clear()
        session.update(user_id=user_id, data=dict(data))

    def rotate(self) -> bool:
        """Nothing to do; there is no id that could change."""
        return self.alive

    def update_data(self, **changes: Any) -> bool:
        """Change some of what is kept."""
        session["data"] = {**self.data, **changes}
        return self.alive

    def end(self) -> None:
        """Sign out in this browser."""
        session.clear()

    def refresh(self) -> None:
        """Nothing ends by itself."""

    def end_others(self) -> int:
        """None: other sessions are not known here."""
        return 0

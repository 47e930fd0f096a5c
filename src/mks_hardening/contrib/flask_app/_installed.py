"""Components of a hardened Flask application, at ``app.extensions["mks_hardening"]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from mks_hardening._core.closing import Closing
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from flask import Flask

    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import SignIn
    from mks_hardening.settings import HardeningSettings
    from mks_hardening.wsgi import SessionManager

__all__ = ["NAME", "Installed", "installed"]

NAME: Final = "mks_hardening"


@dataclass(slots=True, kw_only=True)
class Installed(Closing):
    """Components that ``Hardening`` has set up for an application.

    Attributes:
        settings: its settings.
        store: its session store.
        sessions: lists and ends its sessions.
        limiter: limiter for ``limit``.
        owned: components that ``Hardening`` created, and that ``close`` closes.
        sign_in: its ``SignIn``, whose account locks ``flask mks unlock`` lifts.
    """

    settings: HardeningSettings
    store: SessionStore
    sessions: SessionManager
    limiter: Limiter
    owned: tuple[SessionStore | Closing, ...] = ()
    sign_in: SignIn | None = None

    def close(self) -> None:
        """Close connections; may be called twice."""
        for thing in self.owned:
            thing.close()


def installed(app: Flask) -> Installed:
    """Return the components of the application.

    Raises:
        ConfigurationError: ``Hardening`` was not called for it.
    """
    found = app.extensions.get(NAME)
    if found is None:
        raise ConfigurationError(
            f"{app!r} is not hardened: call Hardening(app, settings) where it is made", parameter="app"
        )
    return cast("Installed", found)

"""Checks of ``flask mks check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening.contrib.flask_app._installed import installed
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

__all__ = ["CheckFinding", "findings"]


class CheckFinding(NamedTuple):
    """A problem in the configuration.

    Attributes:
        id: identifier, stable between versions.
        error: whether the application must not be served with it.
        text: the problem, and how to fix it.
    """

    id: str
    error: bool
    text: str


# Settings of Flask's own cookie, which is no longer sent, with their defaults in Flask 3.1.
_COOKIE_DEFAULTS: Final = {
    "SESSION_COOKIE_NAME": "session",
    "SESSION_COOKIE_DOMAIN": None,
    "SESSION_COOKIE_PATH": None,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": None,
}
_MONTH: Final = 31 * 86_400


def findings(app: Flask) -> Iterator[CheckFinding]:
    """Yield all problems, errors and warnings."""
    parts = installed(app)
    settings = parts.settings
    if settings.core.environment == "development":
        yield _warning("001", "MKS_ENV=development serves this machine only: MKS_ENV=production")
    # An error with several workers, where a session is lost as soon as another worker handles a request.
    if settings.core.redis_url is None and settings.db.workers > 1:
        yield _error("002", "several workers without MKS_REDIS_URL share no session and no limit")
    try:
        parts.store.ping()
    except BackendUnavailableError as error:
        yield _error("003", f"the session store is unavailable: {error}")
    for name, default in _COOKIE_DEFAULTS.items():
        if app.config[name] != default:
            yield _warning("004", f"{name} is for Flask's own cookie: give session_cookie=SessionCookie(...)")
    if app.permanent_session_lifetime.total_seconds() != _MONTH:
        yield _warning(
            "005",
            "PERMANENT_SESSION_LIFETIME is ignored: set MKS_SESSION_IDLE_TIMEOUT and "
            "MKS_SESSION_ABSOLUTE_TIMEOUT",
        )
    if app.debug:
        yield _error("006", "the debugger runs code for anyone who can reach it: remove --debug")


def _error(number: str, text: str) -> CheckFinding:
    return CheckFinding(f"MKS-FLASK-{number}", True, text)


def _warning(number: str, text: str) -> CheckFinding:
    return CheckFinding(f"MKS-FLASK-{number}", False, text)

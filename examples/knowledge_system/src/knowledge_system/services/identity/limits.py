"""Every group of rate limits that the application has: the library's, those of signing in, those of the API."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from mks_hardening import compose
from mks_hardening.security import DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS, Limit

if TYPE_CHECKING:
    from contextlib import ExitStack

    from knowledge_system.settings import AppSettings
    from mks_hardening.protocols import Clock
    from mks_hardening.security import RateLimiter

__all__ = ["API_LIMITS", "open_limiter"]

API_LIMITS: Final = {
    # Before anybody has signed in, by address; wrong passwords have limits of their own.
    "api_open": (Limit("minute", 300, 60), Limit("hour", 6000, 3600)),
    # Asking how far a task or how long a session is.
    "api_poll": (Limit("minute", 600, 60), Limit("hour", 20_000, 3600)),
}
# Administrators register a whole site office at once; the library's three an hour are for strangers who join.
_REGISTRATION: Final = {"auth_register": (Limit("hour", 60, 3600), Limit("day", 200, 86_400))}
"""Whose hits each request of the API takes, so that every answer can say where its client stands."""


def open_limiter(settings: AppSettings, opened: ExitStack, clock: Clock) -> RateLimiter | None:
    """The limiter, given back with ``opened``; ``None`` where the area is switched off."""
    if "security" not in settings.areas:
        return None
    groups = {**DEFAULT_RATE_LIMITS, **_REGISTRATION, **SIGN_IN_LIMITS, **API_LIMITS}
    return opened.enter_context(closing(compose.rate_limiter(settings.hardening, groups, clock=clock)))

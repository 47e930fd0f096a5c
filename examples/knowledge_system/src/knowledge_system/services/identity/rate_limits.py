"""All rate-limit groups of the application: the library's defaults, those of sign-in, those of the API."""

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
    # Before sign-in, by address; failed passwords have separate limits.
    "api_open": (Limit("minute", 300, 60), Limit("hour", 6000, 3600)),
    # Polling the status of a task or a session.
    "api_poll": (Limit("minute", 600, 60), Limit("hour", 20_000, 3600)),
}
"""Groups of the API besides the library's defaults; every API response reports the quota of its group."""
# Administrators register a whole site office at once; the library's default of three per hour is for
# self-registration.
_REGISTRATION: Final = {"auth_register": (Limit("hour", 60, 3600), Limit("day", 200, 86_400))}


def open_limiter(settings: AppSettings, opened: ExitStack, clock: Clock) -> RateLimiter | None:
    """Return the rate limiter, which is closed with ``opened``; ``None`` if the area is disabled."""
    if "security" not in settings.areas:
        return None
    groups = {**DEFAULT_RATE_LIMITS, **_REGISTRATION, **SIGN_IN_LIMITS, **API_LIMITS}
    return opened.enter_context(closing(compose.rate_limiter(settings.hardening, groups, clock=clock)))

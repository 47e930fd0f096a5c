"""All rate-limit groups of the application: the library's defaults, those of sign-in, those of the API."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

from mks_hardening import compose
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS, Limit

if TYPE_CHECKING:
    from contextlib import ExitStack

    from knowledge_system.settings import AppSettings, Offices
    from mks_hardening.protocols import Clock
    from mks_hardening.security import HitReservation, RateLimiter

API_LIMITS: Final = {
    # Before sign-in, by address; failed passwords have separate limits.
    "api_open": (Limit("minute", 300, 60), Limit("hour", 6000, 3600)),
    # Polling the status of a task or a session.
    "api_poll": (Limit("minute", 600, 60), Limit("hour", 20_000, 3600)),
}
"""Groups of the API besides the library's defaults; every API response reports the quota of its group."""
_ADDRESS: Final = "auth_login_address"
# Administrators register a whole site office at once; the library's default of three per hour is for
# self-registration.
_REGISTRATION: Final = {"auth_register": (Limit("hour", 60, 3600), Limit("day", 200, 86_400))}


def open_limiter(settings: AppSettings, opened: ExitStack, clock: Clock) -> RateLimiter | None:
    """Return the rate limiter, which is closed with ``opened``; ``None`` if the area is disabled."""
    if "security" not in settings.areas:
        return None
    groups = {**DEFAULT_RATE_LIMITS, **_REGISTRATION, **SIGN_IN_LIMITS, **API_LIMITS}
    for _, rate in settings.offices:
        groups[_office_group(rate)] = (Limit("minute", rate, 60), Limit("hour", 10 * rate, 3600))
    return opened.enter_context(closing(compose.rate_limiter(settings.hardening, groups, clock=clock)))


class OfficeLimiter:
    """Counts failed sign-ins of offices at their own rate, each office as a whole; all others as ``limiter`` does.

    The limits of an account, of a client with a name, and of a whole network stay as they are.

    Args:
        limiter: has the groups of ``open_limiter``.
        offices: networks and their rates; the most specific network counts.

    Raises:
        ConfigurationError: the limiter only reports refused sign-ins (``MKS_RATE_LIMITS_DRY_RUN``).
    """

    def __init__(self, limiter: RateLimiter, offices: Offices) -> None:
        # `SignIn` checks a `RateLimiter`, not what wraps it.
        if dry := sorted(SIGN_IN_LIMITS.keys() & limiter.dry_run):
            raise ConfigurationError(
                f"MKS_RATE_LIMITS_DRY_RUN must not contain {', '.join(dry)}: failed sign-ins are counted there",
                parameter="limiter",
            )
        self._limiter = limiter
        self._offices = sorted(offices, key=lambda office: -office[0].prefixlen)

    def reserve(self, group: str, key: str, /) -> HitReservation:
        """Reserve a hit, of the office if the key is an address of one."""
        return self._limiter.reserve(*self._counted_as(group, key))

    def reset(self, group: str, key: str, /) -> None:
        """Forget the hits of a key, or of its office."""
        self._limiter.reset(*self._counted_as(group, key))

    def _counted_as(self, group: str, key: str) -> tuple[str, str]:
        if group == _ADDRESS:
            client = _network_of(key)
            for office, rate in self._offices:
                if client is not None and client.version == office.version and client.subnet_of(office):  # type: ignore[arg-type]  # same version
                    return _office_group(rate), str(office)
        return group, key


def _office_group(rate: int) -> str:
    return f"auth_login_office_{rate}"


def _network_of(key: str) -> IPv4Network | IPv6Network | None:
    """Return the network of a client's key: an IPv4 address, or an IPv6 /64."""
    try:
        return ip_network(key)
    except ValueError:  # a client without an address
        return None

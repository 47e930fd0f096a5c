"""Strict-Transport-Security."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mks_hardening._core.checks import flag
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["HSTS"]

_PRELOAD_MINIMUM: Final = 31536000  # hstspreload.org


class HSTS:
    """Strict-Transport-Security: browsers use HTTPS for this host, and do not offer to ignore a bad certificate.

    Args:
        max_age: how long, in seconds or as a ``timedelta``; two years by default. 0 switches it off in browsers
            that have remembered it.
        include_subdomains: the same for every host below.
        preload: consent to the list that browsers ship; hard to take back.

    Raises:
        ConfigurationError: a negative duration, or ``preload`` without sub-domains or for less than a year.

    Source: RFC 6797; hstspreload.org; ASVS 5.0 V3.4.1, V3.7.4.
    """

    __slots__ = ("value",)

    def __init__(
        self, max_age: float | timedelta = 63072000, *, include_subdomains: bool = True, preload: bool = False
    ) -> None:
        for parameter, given in (("include_subdomains", include_subdomains), ("preload", preload)):
            flag(given, parameter=parameter)
        age = int(seconds(max_age, parameter="max_age"))
        if preload and (not include_subdomains or age < _PRELOAD_MINIMUM):
            raise ConfigurationError(
                f"preload needs include_subdomains and a max_age of at least {_PRELOAD_MINIMUM} seconds",
                parameter="preload",
            )
        self.value: str = f"max-age={age}"
        # With 0 the browser forgets the host (RFC 6797, 6.1.1); further words would say the opposite.
        if age:
            self.value += "; includeSubDomains" * include_subdomains + "; preload" * preload

    def __repr__(self) -> str:
        return f"HSTS({self.value!r})"

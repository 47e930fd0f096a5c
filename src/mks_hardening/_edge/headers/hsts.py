"""Strict-Transport-Security (HSTS)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mks_hardening._core.checks import boolean
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["HSTS"]

_PRELOAD_MINIMUM: Final = 31536000  # hstspreload.org


class HSTS:
    """Value of Strict-Transport-Security: browsers use only HTTPS for the host and reject invalid certificates.

    Args:
        max_age: validity in seconds or as a ``timedelta``; two years by default. 0 switches HSTS off in browsers
            that have stored it.
        include_subdomains: whether it applies to all subdomains.
        preload: consent to the preload lists of browsers; difficult to revoke.

    Raises:
        ConfigurationError: a negative duration, or ``preload`` without subdomains or with less than a year.

    Source: RFC 6797; hstspreload.org; ASVS 5.0 V3.4.1, V3.7.4.
    """

    __slots__ = ("value",)

    def __init__(
        self, max_age: float | timedelta = 63072000, *, include_subdomains: bool = True, preload: bool = False
    ) -> None:
        for parameter, given in (("include_subdomains", include_subdomains), ("preload", preload)):
            boolean(given, parameter=parameter)
        age = int(seconds(max_age, parameter="max_age"))
        if preload and (not include_subdomains or age < _PRELOAD_MINIMUM):
            raise ConfigurationError(
                f"preload requires include_subdomains and a max_age of at least {_PRELOAD_MINIMUM} seconds",
                parameter="preload",
            )
        self.value: str = f"max-age={age}"
        # With 0 the browser removes the host (RFC 6797, 6.1.1); other directives would contradict that.
        if age:
            self.value += "; includeSubDomains" * include_subdomains + "; preload" * preload

    def __repr__(self) -> str:
        return f"HSTS({self.value!r})"

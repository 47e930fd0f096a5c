"""Header fields for rate-limited sign-in responses."""

from __future__ import annotations

from math import ceil
from typing import get_args

from mks_hardening._core.checks import choice, instance
from mks_hardening._core.web.rate_headers import HeaderStyle, rate_limit_headers
from mks_hardening.security.sign_in.sign_in_results import ChangeResult, SignInStep

__all__ = ["sign_in_headers"]


def sign_in_headers(step: SignInStep | ChangeResult, *, style: HeaderStyle = "both") -> list[tuple[str, str]]:
    """Return the header fields for the 429 response to a step or a change with state ``limited``.

    Contains ``Retry-After`` (RFC 9110, 10.2.3) if waiting helps. The fields of ``rate_limit_headers`` are added
    only if the limit of the client's address or network refused: those of an account would reveal how often
    others have tried it.

    Args:
        step: result of ``SignIn`` or ``CredentialChanges``; with any other state the list is empty.
        style: see ``rate_limit_headers``.

    Raises:
        ConfigurationError: the result or the style is invalid.
    """
    if not isinstance(step, ChangeResult):
        instance(step, SignInStep, parameter="step")
    choice(style, get_args(HeaderStyle), parameter="style")
    if step.decision is not None:
        return rate_limit_headers(step.decision, style=style)
    if step.state != "limited" or step.retry_after is None:
        return []
    return [("Retry-After", str(max(1, ceil(step.retry_after))))]

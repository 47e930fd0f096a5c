"""Texts of a 429 response: the problem document of the middleware, in two languages, and the detail for views."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.checks import choice, shows
from mks_hardening._core.web.rate_headers import wait_in_seconds

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision

__all__ = ["TOO_MANY", "Language", "language_of", "rate_limit_problem"]

Language = Literal["ja", "en"]

# Registered by draft-ietf-httpapi-ratelimit-headers, section 5.
_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_TITLES: Final = {"ja": "回数の上限に達しました", "en": "Too many requests"}
TOO_MANY: Final = f"{_TITLES['en']}. Wait for the time given in Retry-After."
"""Detail of a 429 response from a limit of a view, whose framework renders the response."""
_WAIT: Final = {
    "ja": "{seconds} 秒ほど待ってから、もう一度お試しください。",
    "en": "Try again in {seconds} seconds.",
}
_NEVER: Final = {
    "ja": "このリクエストは上限より大きいため、受け付けられません。",
    "en": "This request is larger than the limit.",
}


_WISH: Final = re.compile(
    r"\s*(\*|[a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*", re.ASCII
)


def rate_limit_problem(decision: LimitDecision, *, language: Language = "en") -> dict[str, object]:
    """Return the members of a problem document (RFC 9457) for a rejection, sent with ``rate_limit_headers``.

    Args:
        decision: the decision to reject the request.
        language: language of title and detail.

    Raises:
        ConfigurationError: an unknown language, or not a decision.
    """
    choice(language, _TITLES, parameter="language")
    shows(decision, "allowed", "limits", parameter="decision", kind="a Decision")
    wait = wait_in_seconds(decision)
    detail = _NEVER[language] if wait is None else _WAIT[language].format(seconds=wait)
    breached: tuple[str, ...] = tuple(getattr(decision, "breached", ()))
    return {
        "type": _TYPE,
        "title": _TITLES[language],
        "status": 429,
        "detail": detail,
        "violated-policies": list(breached),
    }


def language_of(accept_language: str) -> Language:
    """Return the preferred language of an ``Accept-Language`` field (RFC 9110, 12.5.4); English by default."""
    best: Language = "en"
    most = 0.0
    # Browsers send about 50 characters.
    for part in accept_language[:500].lower().split(","):
        wish = _WISH.fullmatch(part)
        liked = float(wish[2] or 1) if wish else 0.0
        if wish and liked > most and wish[1] in ("ja", "en"):
            best, most = ("ja" if wish[1] == "ja" else "en"), liked
    return best

"""Context of the current request: user, language, session, rate limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import current_app, g, has_request_context, request
from werkzeug.exceptions import TooManyRequests

from knowledge_system.domain import translations
from knowledge_system.domain.problems import Problem
from knowledge_system.services.identity import accounts, sign_in_results
from knowledge_system.web import cookies
from knowledge_system.web.plain_session import PlainSession
from mks_hardening.contrib.flask_app import current_csrf_token, current_session, limit
from mks_hardening.security import client_key

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as BaseResponse

    from knowledge_system.background.queue import Background
    from knowledge_system.components import Services
    from knowledge_system.domain.permissions import Actor

T = TypeVar("T")

ONCE = "once"
"""Form field that distinguishes a resubmitted form from a new one with equal content."""


def services() -> Services:
    """Return the application's services."""
    return cast("Services", current_app.extensions["knowledge"])


def enabled(part: T | None, *, code: str = "unavailable") -> T:
    """Return a service, if the settings enable it.

    Raises:
        Problem: ``code`` if they do not.
    """
    if part is None:
        raise Problem(code)
    return part


def background() -> Background:
    """Return the task queue.

    Raises:
        Problem: ``not-found`` if background tasks are disabled.
    """
    return enabled(services().background, code="not-found")


def now() -> datetime:
    """Return the time of the application's clock."""
    return datetime.fromtimestamp(services().clock.time(), UTC)


def is_hardened() -> bool:
    """Whether the library's wrappers are installed around the application."""
    return services().session_store is not None


def route() -> str:
    """Return the route of the request, such as ``/articles/<int:article_id>``, or an empty text outside of one."""
    return request.url_rule.rule if has_request_context() and request.url_rule else ""


def handle() -> Any:
    """Return the session of this request, or the token session of an API client."""
    if "session" in g:
        return g.session
    return current_session() if is_hardened() else PlainSession()


def actor_or_none() -> Actor | None:
    """Return the user whose sign-in is complete, or ``None``."""
    if "actor" not in g:
        g.actor = _find_actor()
    return cast("Actor | None", g.actor)


def stay_anonymous() -> None:
    """Treat the request as anonymous, for responses while the database or the session store may be unavailable."""
    g.actor = None


def actor() -> Actor:
    """Return the user whose sign-in is complete.

    Raises:
        Problem: ``sign-in-required``.
    """
    found = actor_or_none()
    if found is None:
        raise Problem("sign-in-required")
    return found


def address() -> str:
    """Return the client's address, as determined by the trusted proxies."""
    return request.remote_addr or "unknown"


def check_limit(group: str) -> None:
    """Count one hit in a rate-limit group, for the user, or for the address before sign-in.

    Raises:
        Problem: ``rate-limited``.
    """
    limiter = services().limiter
    if limiter is None or not is_hardened():
        g.limit = sign_in_results.check_limit(limiter, group, _whom())
        return
    g.counted = True
    try:
        _counted(group)()
    except TooManyRequests as refused:
        raise Problem("rate-limited", headers={"Retry-After": str(refused.retry_after or 1)}) from None


@cache
def _counted(group: str) -> Callable[[], None]:
    """Return a function that counts one hit; the Flask adapter adds the limit's headers to the response."""

    @limit(group, key=_whom)
    def hit() -> None:
        """Do nothing else."""

    return hit


def _whom() -> str:
    person = actor_or_none()
    return f"client:{client_key(address())}" if person is None else f"user:{person.id}"


def language() -> str:
    """Return ``ja`` or ``en``: the user's setting, else the language cookie, else ``Accept-Language``."""
    if "language" not in g:
        g.language = _find_language()
    return cast("str", g.language)


def say(text: str, **values: object) -> str:
    """Return a text of the catalogue in the language of the request."""
    return translations.say(text, language(), **values)


def add_language_fields(response: BaseResponse) -> None:
    """Set ``Content-Language`` and ``Vary`` of the response."""
    if "language" in g:
        response.vary.update(("Accept-Language", "Cookie"))
        response.content_language = [g.language]


def wants_json() -> bool:
    """Whether to respond with JSON: below ``/api/``, or if the client prefers it to HTML."""
    if request.path.startswith("/api/"):
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json", "application/problem+json"])
    return best not in {"text/html", None}


def request_id() -> str:
    """Return the request id used in logs and responses."""
    return str(request.environ.get("REQUEST_ID", ""))


def csrf_token() -> str:
    """Return the CSRF token for forms; empty if the protection is disabled, and for API clients."""
    return "" if "session" in g else current_csrf_token()


def _find_language() -> str:
    person = actor_or_none()
    # API clients use their own Accept-Language, not the setting of the account.
    chosen = "" if "session" in g else (person and person.language) or cookies.kept(cookies.LANGUAGE)
    return (
        chosen
        if chosen in translations.LANGUAGES
        else request.accept_languages.best_match(list(translations.LANGUAGES), default="ja")
    )


def _find_actor() -> Actor | None:
    session = handle()
    # The second condition: sessions that an earlier release began between password and code.
    if not session.user_id or "sign_in" not in session.data:
        return None
    # Autocommit: a transaction would cost two more round trips per request.
    with services().engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return accounts.find(connection, int(session.user_id))

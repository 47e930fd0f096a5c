"""What the current request is about: who asks, in which language, with which session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask import current_app, g, request
from werkzeug.exceptions import TooManyRequests

from knowledge_system.domain import permissions, translations
from knowledge_system.domain.problems import Problem
from knowledge_system.services.identity import accounts, sign_in_results
from knowledge_system.web import cookies
from knowledge_system.web.plain_session import PlainSession
from mks_hardening.contrib.flask_app import current_csrf_token, current_session, limit
from mks_hardening.security import client_key

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as BaseResponse

    from knowledge_system.background.queue import Background
    from knowledge_system.components import Parts
    from knowledge_system.domain.permissions import Actor

__all__ = [
    "ONCE",
    "actor",
    "actor_or_none",
    "address",
    "administrators_only",
    "background",
    "check_limit",
    "csrf_token",
    "handle",
    "is_hardened",
    "language",
    "now",
    "parts",
    "request_id",
    "say",
    "stay_anonymous",
    "tell_language",
    "wants_json",
]

ONCE = "once"
"""The field that tells a form which is sent twice from two that say the same."""

P = ParamSpec("P")
R = TypeVar("R")


def parts() -> Parts:
    """The application's services."""
    return cast("Parts", current_app.extensions["knowledge"])


def background() -> Background:
    """The background tasks.

    Raises:
        Problem: ``not-found`` where they are switched off.
    """
    found = parts().background
    if found is None:
        raise Problem("not-found")
    return found


def now() -> datetime:
    """The time of the application's clock."""
    return datetime.fromtimestamp(parts().clock.time(), UTC)


def is_hardened() -> bool:
    """Whether the library stands around this application."""
    return parts().session_store is not None


def handle() -> Any:
    """The session of this request, or the sign-in of a program."""
    if "session" in g:
        return g.session
    return current_session() if is_hardened() else PlainSession()


def actor_or_none() -> Actor | None:
    """The person who signed in completely, or None."""
    if "actor" not in g:
        g.actor = _find_actor()
    return cast("Actor | None", g.actor)


def stay_anonymous() -> None:
    """Ask nobody who this is: for what is said where database or sessions may be away."""
    g.actor = None


def actor() -> Actor:
    """The person who signed in completely.

    Raises:
        Problem: ``sign-in-required``.
    """
    found = actor_or_none()
    if found is None:
        raise Problem("sign-in-required")
    return found


def administrators_only(view: Callable[P, R]) -> Callable[P, R]:
    """Refuse everybody else."""

    @wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not permissions.may_administer(actor()):
            raise Problem("forbidden")
        return view(*args, **kwargs)

    return checked


def address() -> str:
    """The address of the client, as far as the outer wrappers trust it."""
    return request.remote_addr or "unknown"


def check_limit(group: str) -> None:
    """Take one hit in a group of rate limits: of the person, or of the address while nobody has signed in.

    Raises:
        Problem: ``rate-limited``.
    """
    limiter = parts().limiter
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
    """One hit; the adapter tells in the answer where the limit stands."""

    @limit(group, key=_whom)
    def hit() -> None:
        """Nothing more."""

    return hit


def _whom() -> str:
    person = actor_or_none()
    return f"client:{client_key(address())}" if person is None else f"user:{person.id}"


def language() -> str:
    """``ja`` or ``en``: what the person chose, or this browser's last one, or what it asks for."""
    if "language" not in g:
        g.language = _find_language()
    return cast("str", g.language)


def say(text: str, **values: object) -> str:
    """A sentence of the catalogue in the reader's language."""
    return translations.say(text, language(), **values)


def tell_language(response: BaseResponse) -> None:
    """Say in the answer what language its page is in, and what that depends on."""
    if "language" in g:
        response.vary.update(("Accept-Language", "Cookie"))
        response.content_language = [g.language]


def wants_json() -> bool:
    """Whether the answer should be JSON: under ``/api/``, or preferred to HTML by the client."""
    if request.path.startswith("/api/"):
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json", "application/problem+json"])
    return best not in {"text/html", None}


def request_id() -> str:
    """The number of this request in logs and answers."""
    return str(request.environ.get("REQUEST_ID", ""))


def csrf_token() -> str:
    """The token that forms carry; empty where the protection is switched off, and for programs."""
    return "" if "session" in g else current_csrf_token()


def _find_language() -> str:
    person = actor_or_none()
    # A program shares its owner's account, not the eyes.
    chosen = "" if "session" in g else (person and person.language) or cookies.kept(cookies.LANGUAGE)
    return (
        chosen
        if chosen in translations.LANGUAGES
        else request.accept_languages.best_match(list(translations.LANGUAGES), default="ja")
    )


def _find_actor() -> Actor | None:
    session = handle()
    # The second: a session that an earlier release began between password and code.
    if not session.user_id or "sign_in" not in session.data:
        return None
    # One statement needs no transaction around it, which would be two more round trips of every request.
    with parts().engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return accounts.find(connection, int(session.user_id))

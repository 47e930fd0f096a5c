"""What the current request is about: who asks, in which language, with which session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask import current_app, g, request

from knowledge_system import rules
from knowledge_system.problems import Problem
from knowledge_system.services import accounts, sign_in
from knowledge_system.web.plain_session import PlainSession

if TYPE_CHECKING:
    from knowledge_system.parts import Parts
    from knowledge_system.rules import Actor

__all__ = [
    "actor",
    "actor_or_none",
    "address",
    "administrators_only",
    "check_limit",
    "csrf_token",
    "handle",
    "language",
    "now",
    "parts",
    "request_id",
    "stay_anonymous",
    "wants_json",
]

P = ParamSpec("P")
R = TypeVar("R")


def parts() -> Parts:
    """The application's services."""
    return cast("Parts", current_app.extensions["knowledge"])


def now() -> datetime:
    """The time of the application's clock."""
    return datetime.fromtimestamp(parts().clock.time(), UTC)


def handle() -> Any:
    """The session of this request as the outer wrapper left it."""
    session = request.environ.get("mks_hardening.session")
    return PlainSession() if session is None else session


def actor_or_none() -> Actor | None:
    """The person who signed in completely, or None."""
    if "actor" not in g:
        g.actor = _find_actor()
    return cast("Actor | None", g.actor)


def stay_anonymous() -> None:
    """Ask nobody who this is: for the page that says the database is away."""
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
        if not rules.may_administer(actor()):
            raise Problem("forbidden")
        return view(*args, **kwargs)

    return checked


def address() -> str:
    """The address of the client, as far as the outer wrappers trust it."""
    return request.remote_addr or "unknown"


def check_limit(group: str) -> None:
    """Take one hit of the signed-in person in a group of rate limits.

    Raises:
        Problem: ``rate-limited``.
    """
    sign_in.check_limit(parts().limiter, group, f"user {actor().id}")


def language() -> str:
    """``ja`` or ``en``, by Accept-Language."""
    return request.accept_languages.best_match(["ja", "en"], default="ja")


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
    """The token that forms carry, empty where the protection is switched off."""
    return str(request.environ.get("mks_hardening.csrf_token", ""))


def _find_actor() -> Actor | None:
    session = handle()
    if not session.user_id or session.data.get("stage") != "full":
        return None
    with parts().sessions() as database:
        return accounts.find(database, int(session.user_id))

"""Changes that pages and endpoints share: one transaction, tried again when it lost; then the cache forgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from knowledge_system.services import accounts, articles
from knowledge_system.web import here
from mks_hardening.db import retry_on_serialization_failure

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from knowledge_system.rules import Actor

__all__ = ["add_comment", "create_article", "register", "save_article"]

R = TypeVar("R")


def create_article(values: dict[str, Any]) -> int:
    """Add an article; returns its id."""
    services, actor, now = here.parts(), here.actor(), here.now()
    new = _transaction(
        lambda session: articles.create(session, actor, values, search=services.search, now=now)
    )
    services.catalogue.forget()
    return new


def save_article(article_id: int, values: dict[str, Any]) -> None:
    """Save an edit made on top of ``values["revision"]``."""
    services, actor, now = here.parts(), here.actor(), here.now()
    revision = values["revision"]
    _transaction(
        lambda session: articles.save(
            session, actor, article_id, values, revision=revision, search=services.search, now=now
        )
    )
    services.catalogue.forget()


def add_comment(article_id: int, body: str) -> int:
    """Add a remark; returns its id."""
    actor, now = here.actor(), here.now()
    new = _transaction(lambda session: articles.add_comment(session, actor, article_id, body, now=now))
    here.parts().catalogue.forget()
    return new


def register(values: dict[str, Any]) -> Actor:
    """Add a member of staff."""
    now = here.now()
    return _transaction(lambda session: accounts.register(session, **values, now=now))


def _transaction(change: Callable[[Session], R]) -> R:
    sessions = here.parts().sessions

    @retry_on_serialization_failure()
    def attempt() -> R:
        with sessions.begin() as session:
            return change(session)

    return attempt()

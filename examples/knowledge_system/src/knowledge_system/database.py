"""Tables and first contents."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from knowledge_system.models import Base
from knowledge_system.services import content

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

    from knowledge_system.services.search import SearchIndex
    from mks_hardening.protocols import Clock

__all__ = ["create_tables", "fill"]

Progress = Callable[[str], Callable[[int, int], None]]


def create_tables(engine: Engine, search: SearchIndex) -> None:
    """Create what is missing; harmless when everything is there."""
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        search.create(connection)


def fill(
    sessions: sessionmaker[Session],
    search: SearchIndex,
    *,
    password: str,
    clock: Clock,
    number: int = 0,
    progress: Progress = lambda _label: lambda _done, _total: None,
) -> tuple[int, int]:
    """Load people and articles that are missing, generate more up to ``number``; returns how many were added."""
    with sessions.begin() as session:
        people = content.load_people(
            session,
            password=password,
            now=datetime.fromtimestamp(clock.time(), UTC),
            progress=progress("利用者"),
        )
        articles = content.load_articles(session, search=search, progress=progress("記事"))
        articles += content.generate(session, number, search=search, progress=progress("生成した記事"))
    return people, articles

"""The whole system put together: the one place that knows both the application and the library."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import Flask
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system import models
from knowledge_system.api import auth, knowledge
from knowledge_system.demo.clock import MovableClock
from knowledge_system.parts import Parts
from knowledge_system.services.catalogue import Catalogue
from knowledge_system.services.search import PlainSearch, SearchIndex
from knowledge_system.services.sign_in import RATE_LIMITS
from knowledge_system.settings import AppSettings
from knowledge_system.web import account, admin, articles, demo_pages, errors, rendering
from mks_hardening import cache as caching
from mks_hardening.db import JapaneseSearch, hardened_engine
from mks_hardening.security import (
    DEFAULT_RATE_LIMITS,
    RateLimiter,
    SecretBox,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
)
from mks_hardening.wsgi import MemorySessionStore, SessionManager

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["create_app", "from_env", "open_database", "session_factory"]


def create_app(settings: AppSettings, *, clock: Clock = time) -> Flask:
    """The application with every area that the settings name; any of them may be missing."""
    hard, areas = settings.hardening, settings.areas
    engine, search = open_database(settings)
    sessions = session_factory(engine)
    cache: Any = caching.MemoryCache() if "cache" in areas else caching.NullCache()
    session_clock = MovableClock(clock, file=settings.data_dir / "session-clock") if settings.demo else clock
    store = MemorySessionStore()
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=262_144, MAX_FORM_MEMORY_SIZE=262_144, MAX_FORM_PARTS=50)
    app.extensions["knowledge"] = Parts(
        settings=settings,
        clock=clock,
        engine=engine,
        sessions=sessions,
        search=search,
        cache=cache,
        catalogue=Catalogue(sessions, cache=cache, search=search),
        limiter=RateLimiter({**DEFAULT_RATE_LIMITS, **RATE_LIMITS}, clock=clock)
        if "security" in areas
        else None,
        two_factor=TwoFactorManager(
            SQLAlchemyTwoFactorStore(engine, table=models.second_factors),
            issuer=hard.security.issuer,
            secret_box=SecretBox(hard.security.secret_keys),
            clock=clock,
        )
        if "security" in areas
        else None,
        session_manager=SessionManager(store, clock=session_clock) if "wsgi" in areas else None,
        session_clock=session_clock,
    )
    errors.install(app)
    rendering.install(app)
    for blueprint in (articles.pages, account.pages, admin.pages, auth.endpoints, knowledge.endpoints):
        app.register_blueprint(blueprint)
    if settings.demo:
        app.register_blueprint(demo_pages.pages)
    return app


def from_env() -> Flask:
    """The application as the environment says, for gunicorn."""
    return create_app(AppSettings.from_env())


def open_database(settings: AppSettings) -> tuple[Engine, SearchIndex]:
    """Engine and search index of the configured database."""
    db = settings.hardening.db
    if "db" not in settings.areas:
        return create_engine(db.url or ""), PlainSearch()
    engine = hardened_engine(
        db.url or "", workers=db.workers, threads=db.threads, max_connections=db.max_connections
    )
    return engine, JapaneseSearch("article_search")


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)

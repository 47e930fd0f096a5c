"""The whole system put together: the one place that knows both the application and the library."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

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
from knowledge_system.web.edge_answers import InOurWords
from knowledge_system.web.policy import header_policy
from mks_hardening import compose
from mks_hardening.cache import NullCache
from mks_hardening.db import JapaneseSearch, SlowQueryMonitor, hardened_engine
from mks_hardening.security import (
    DEFAULT_RATE_LIMITS,
    SecretBox,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
)
from mks_hardening.wsgi import SessionManager

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["create_app", "from_env", "open_database", "session_factory"]


def create_app(settings: AppSettings, *, clock: Clock = time) -> Flask:
    """The application with every area that the settings name; it runs without any of them."""
    hard, areas = settings.hardening, settings.areas
    if "logging" in areas:
        compose.setup_logging_with_notifications(hard)
    engine, search = open_database(settings)
    sessions = session_factory(engine)
    cache = compose.cache_backend(hard) if "cache" in areas else NullCache()
    limiter = two_factor = None
    if "security" in areas:
        limiter = compose.rate_limiter(hard, {**DEFAULT_RATE_LIMITS, **RATE_LIMITS}, clock=clock)
        factors = SQLAlchemyTwoFactorStore(engine, table=models.second_factors)
        box = SecretBox(hard.security.secret_keys)
        two_factor = TwoFactorManager(factors, issuer=hard.security.issuer, secret_box=box, clock=clock)
    session_clock = MovableClock(clock, file=settings.data_dir / "session-clock") if settings.demo else clock
    store = compose.session_store(hard) if "wsgi" in areas else None

    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=262_144, SEND_FILE_MAX_AGE_DEFAULT=31_536_000)
    app.extensions["knowledge"] = Parts(
        settings=settings,
        clock=clock,
        engine=engine,
        sessions=sessions,
        search=search,
        cache=cache,
        catalogue=Catalogue(sessions, cache=cache, search=search),
        limiter=limiter,
        two_factor=two_factor,
        session_manager=SessionManager(store, clock=session_clock) if store else None,
        session_clock=session_clock,
    )
    errors.install(app)
    rendering.install(app)
    blueprints = (articles.pages, account.pages, admin.pages, auth.endpoints, knowledge.endpoints)
    for blueprint in (*blueprints, demo_pages.pages) if settings.demo else blueprints:
        app.register_blueprint(blueprint)
    if store is None:
        app.secret_key = secrets.token_bytes(32)
        return app
    hardened = compose.harden_wsgi(
        app.wsgi_app,
        hard,
        store=store,
        required={"database": lambda: engine.connect().close()},
        optional={"cache": cache.ping, "sessions": store.ping},
        headers=header_policy(hard),
        sign_in_url="/sign-in?reason={reason}",
        public_paths=("/static/",),
        passive_paths=("/api/auth/session", "/static/"),
        api_paths=("/api/",),
        clock=session_clock,
    )
    app.wsgi_app = InOurWords(hardened, app)  # type: ignore[method-assign]  # as Flask documents
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
        db.url or "",
        workers=db.workers,
        threads=db.threads,
        max_connections=db.max_connections,
        statement_timeout=db.statement_timeout,
        application_name="knowledge-system",
    )
    SlowQueryMonitor(engine, threshold=db.slow_query).install()
    return engine, JapaneseSearch("article_search")


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)

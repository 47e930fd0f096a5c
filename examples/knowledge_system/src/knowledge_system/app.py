"""Application factory: the only module that wires the application to the library."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from flask import Flask
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, configure_mappers, sessionmaker

from knowledge_system.api import route_table
from knowledge_system.background.account_notices import factor_notifier, notifier
from knowledge_system.background.queue import Background
from knowledge_system.components import Services
from knowledge_system.domain.fields import BODY_LIMIT
from knowledge_system.domain.search_variants import spelling_variants
from knowledge_system.flask_commands import commands
from knowledge_system.services.attachments.upload_intake import Intake
from knowledge_system.services.identity.api_tokens import Tokens
from knowledge_system.services.identity.rate_limits import open_limiter
from knowledge_system.services.identity.sign_in_factory import (
    INVITATION_SECONDS,
    create_sign_in,
    open_factors,
    open_provider,
    open_sign_in_store,
)
from knowledge_system.services.identity.user_accounts import UserAccounts
from knowledge_system.services.knowledge.article_reader import ArticleReader
from knowledge_system.services.operations.metric_samples import Samples
from knowledge_system.services.page_reads import PageReads
from knowledge_system.services.reports import link_keys
from knowledge_system.services.sign_in_audit import SignInAuditLog
from knowledge_system.services.transactions import WritingSession
from knowledge_system.settings import AppSettings
from knowledge_system.web import access, addresses, audit_hook, current_request, errors, pages, rendering
from knowledge_system.web.edge import harden
from knowledge_system.web.watchdog import RequestWatchdog
from mks_hardening import compose
from mks_hardening.cache import CDNManager, NullCache
from mks_hardening.contrib.sentry_redaction import init_sentry
from mks_hardening.db import ReadReplicas, SearchIndex, SlowQueryMonitor, hardened_engine
from mks_hardening.exceptions import ConfigurationError, SettingsError
from mks_hardening.security import CredentialChanges
from mks_hardening.wsgi import SessionManager

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.security import SignIn

PURGE_SECONDS = 8
"""Deadline of a CDN purge in seconds. The administrator's request, and its thread, wait for the purge."""
_REPLICA_DEADLINE = 1
"""Seconds within which a replica must respond; the primary is there."""
_REPLICA_RETRY = 10
"""Seconds until a replica that failed is asked again: a request that finds it silent waits for the deadline."""
_TASK_THREADS = 5
"""Threads per process that use the database besides request threads: 2 workers, schedule, leases, queue watch."""
_FIRST_TEMPLATES = (
    "base.html",
    "_parts.html",
    "_list.html",
    "articles.html",
    "article.html",
    "article_form.html",
)
"""Templates of the pages that most first requests ask for."""
_BOOT_ERROR = 3
"""Exit status after which gunicorn does not restart the worker."""


def create_app(settings: AppSettings, *, clock: Clock = time, session_clock: Clock | None = None) -> Flask:
    """Create the application with every area that the settings enable; each area is optional.

    ``app.extensions["knowledge"].close()`` releases what was opened. If creation fails, everything is released.

    Args:
        settings: settings of the application and of the library.
        clock: clock for everything except sessions.
        session_clock: clock for sessions; ``clock`` by default.
    """
    app = Flask(__name__)
    # Werkzeug limits the decoded fields of a form separately from the body (500,000 bytes by default).
    app.config.update(
        MAX_CONTENT_LENGTH=BODY_LIMIT, MAX_FORM_MEMORY_SIZE=BODY_LIMIT, SEND_FILE_MAX_AGE_DEFAULT=31_536_000
    )
    opened = ExitStack()
    try:
        parts = _parts(settings, opened, clock=clock, session_clock=session_clock or clock)
        app.extensions["knowledge"] = parts
        audit_hook.install(app)
        addresses.install(app)
        errors.install(app)
        rendering.install(app)
        app.cli.add_command(commands)
        for module in iter_modules(pages.__path__, f"{pages.__name__}."):
            app.register_blueprint(import_module(module.name).pages)
        route_table.install(app)
        access.install(app)
        if "wsgi" in settings.areas:
            harden(app, parts)
        else:
            app.secret_key = secrets.token_bytes(32)
        watchdog = opened.enter_context(closing(RequestWatchdog(app.wsgi_app)))
        app.wsgi_app = watchdog  # type: ignore[method-assign]  # documented by Flask
    except BaseException:
        opened.close()
        raise
    return app


def from_env() -> Flask:
    """Create the application from environment variables, for gunicorn.

    Raises:
        SystemExit: the settings are invalid; one message on stderr lists all errors.
    """
    try:
        app = create_app(AppSettings.from_env())
    except (SettingsError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_BOOT_ERROR) from None
    warm_up(app)
    app.extensions["knowledge"].serve()
    return app


def warm_up(app: Flask) -> None:
    """Do what the first requests would wait for; at a reload, the old workers serve until then."""
    configure_mappers()
    for name in _FIRST_TEMPLATES:
        app.jinja_env.get_template(name)


@contextmanager
def sign_in_from_env() -> Iterator[SignIn]:
    """Provide ``SignIn`` for ``mks-hardening sign-in --target knowledge_system.app:sign_in_from_env``."""
    parts = create_app(AppSettings.from_env()).extensions["knowledge"]
    try:
        yield parts.sign_in
    finally:
        parts.close()


@contextmanager
def open_database(settings: AppSettings) -> Iterator[tuple[Engine, SearchIndex]]:
    """Open the engine and the search index of the configured database; dispose of the engine on exit."""
    db = settings.hardening.db
    search = SearchIndex("article_search", synonyms=spelling_variants)
    if "db" not in settings.areas:
        engine = create_engine(db.url or "")
        try:
            yield engine, search
        finally:
            engine.dispose()
        return
    threads, pooling = db.threads + _TASK_THREADS, db.transaction_pooling
    with _open_engine(settings, db.url or "", threads=threads, transaction_pooling=pooling) as opened:
        yield opened, search


@contextmanager
def _open_engine(settings: AppSettings, url: str, **options: Any) -> Iterator[Engine]:
    """Open an engine with the limits of the settings, and watch for slow statements."""
    db = settings.hardening.db
    engine = hardened_engine(
        url,
        workers=db.workers,
        max_connections=db.max_connections,
        generations=db.generations,
        statement_timeout=db.statement_timeout,
        application_name="knowledge-system",
        **options,
    )
    try:
        with SlowQueryMonitor(engine, threshold=db.slow_query):
            yield engine
    finally:
        engine.dispose()


def _replicas(settings: AppSettings, primary: Engine, opened: ExitStack) -> ReadReplicas[Engine] | None:
    """Open the read replicas that the settings name; none is connected to before it is used."""
    engines = [
        opened.enter_context(
            _open_engine(
                settings, url, threads=settings.hardening.db.threads, client_deadline=_REPLICA_DEADLINE
            )
        )
        for url in settings.database_replica_urls
    ]
    return ReadReplicas(primary, engines, retry_after=_REPLICA_RETRY) if engines else None


def session_factory(engine: Engine, *, reading: bool = False) -> sessionmaker[Session]:
    """Create a session factory whose objects remain readable after a commit.

    With ``reading``, sessions run in autocommit mode: a page that only reads saves the round trips that begin and
    end a transaction. A ROLLBACK at its end would also cost the statements that psycopg has prepared on the
    connection: it forgets all of them, and PostgreSQL plans each again.
    """
    if reading:
        return sessionmaker(engine.execution_options(isolation_level="AUTOCOMMIT"), expire_on_commit=False)
    return sessionmaker(engine, class_=WritingSession, expire_on_commit=False)


def _cdn(settings: AppSettings, opened: ExitStack) -> CDNManager | None:
    """Return the client of the CDN, if the settings name one."""
    zone, token = settings.hardening.cache.cdn_zone_id, settings.hardening.cache.cdn_api_token
    if "cache" not in settings.areas or zone is None or token is None:
        return None
    return opened.enter_context(closing(CDNManager(zone, api_token=token, timeout=3, deadline=PURGE_SECONDS)))


def _parts(settings: AppSettings, opened: ExitStack, *, clock: Clock, session_clock: Clock) -> Services:
    """Build the services, one paragraph per area; a disabled area is ``None`` or a null object."""
    hard, areas = settings.hardening, settings.areas
    if "logging" in areas:  # with "notify", errors also go out as alerts
        compose.setup_logging_with_notifications(hard)
        if settings.sentry_dsn is not None:
            init_sentry(settings.sentry_dsn, environment=hard.core.environment)

    engine, search = opened.enter_context(open_database(settings))
    sessions = session_factory(engine)

    cache = opened.enter_context(closing(compose.cache_backend(hard) if "cache" in areas else NullCache()))
    limiter = open_limiter(settings, opened, clock)

    # The rest of the area "wsgi" is in web/edge.py.
    store = opened.enter_context(closing(compose.session_store(hard))) if "wsgi" in areas else None
    manager = None if store is None else SessionManager(store, clock=session_clock)

    trail, samples = (
        SignInAuditLog(sessions, clock=clock),
        Samples(sessions, clock=clock, route=current_request.route),
    )
    for watcher in (trail, samples):
        opened.enter_context(watcher.watching())
    reads = session_factory(engine, reading=True)
    tokens = Tokens(sessions, reads=reads, keys=hard.security.secret_keys, clock=clock, tell=trail.note)
    page_reads = PageReads(
        reads,
        replicas=_replicas(settings, engine, opened),
        count=samples.count_read,
    )
    catalogue = ArticleReader(page_reads, cache=cache, search=search)
    background = (
        Background(engine, sessions, settings=settings, clock=clock, forget=catalogue.forget)
        if "tasks" in areas
        else None
    )
    accounts = UserAccounts(
        sessions,
        reads=reads,
        mail_domain=settings.mail_domain,
        passwords_of=None if settings.oidc_passwords else settings.oidc_emergency_accounts,
    )
    two_factor, passkeys = (
        open_factors(settings, engine, clock, on_notice=factor_notifier(background, sessions, accounts))
        if "security" in areas
        else (None, None)
    )
    challenges = open_sign_in_store(settings, opened, clock)
    sign_in, inviting = create_sign_in(
        settings,
        accounts,
        store=challenges,
        limiter=limiter,
        factors=two_factor,
        manager=manager,
        tokens=tokens,
        on_notice=notifier(background, sessions, site_url=settings.site_url),
        clock=clock,
    )
    return Services(
        settings=settings,
        clock=clock,
        engine=engine,
        sessions=sessions,
        search=search,
        cache=cache,
        catalogue=catalogue,
        page_reads=page_reads,
        limiter=limiter,
        two_factor=two_factor,
        passkeys=passkeys,
        sign_in=sign_in,
        changes=CredentialChanges(sign_in, set_email=accounts.set_email) if manager else None,
        invitations=CredentialChanges(inviting, token_ttl=INVITATION_SECONDS) if manager else None,
        provider=open_provider(settings, clock),
        provider_flows=challenges,
        session_store=store,
        session_manager=manager,
        session_clock=session_clock,
        background=background,
        link_keys=link_keys(hard.security.secret_keys),
        tokens=tokens,
        trail=trail,
        samples=samples,
        cdn=_cdn(settings, opened),
        intake=Intake.from_settings(settings),
        opened=opened,
    )

"""Checks of ``knowledge-system check``: problems to fix before users work with the system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Engine, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from knowledge_system import app as application
from knowledge_system import database
from knowledge_system.migrations.runner import MigrationError, Migrations
from knowledge_system.models import User
from knowledge_system.services.attachments.file_store import FileStore
from knowledge_system.services.attachments.virus_scan import ScanFailedError, scanner
from knowledge_system.services.identity import accounts
from knowledge_system.services.identity.sign_in_factory import open_provider
from knowledge_system.services.knowledge import stored_content
from knowledge_system.settings import DEMO_PASSWORD, AppSettings
from mks_hardening.protocols import Clock
from mks_hardening.security import verify_password


class Finding(NamedTuple):
    """One problem; an ``error`` prevents the system from working."""

    error: bool
    text: str


def findings(settings: AppSettings, *, clock: Clock) -> Iterator[Finding]:
    """Yield every problem found; errors in the settings themselves are reported when the settings are read.

    Args:
        settings: settings to check.
        clock: clock for the age of a backup.
    """
    try:
        yield from _of_database(settings, clock)
    except DatabaseError as error:  # it does not respond, is none, or refuses to be read
        yield Finding(True, f"the database cannot be used: {str(error.orig).splitlines()[0]}")
    if "wsgi" in settings.areas:
        yield from _of_edge(settings)
    yield from _of_uploads(settings)
    provider = open_provider(settings, clock)
    if provider is not None and (fault := provider.fault()):
        yield Finding(False, f"{provider!r} cannot be used: {fault} (MKS_OIDC_ISSUER)")
    mail = {"tasks", "notify"} <= settings.areas and settings.hardening.notify.smtp_host is not None
    if not mail:
        yield Finding(False, "no mail server: nobody can be invited or reset a password (MKS_SMTP_HOST)")


def _of_database(settings: AppSettings, clock: Clock) -> Iterator[Finding]:
    with application.open_database(settings) as (engine, _):
        pending = Migrations(engine).pending()
        if pending:
            yield Finding(True, f"revisions are missing: {', '.join(pending)} (knowledge-system upgrade)")
            return
        if engine.dialect.name == "postgresql":
            yield from _of_connections(settings, engine)
        with application.session_factory(engine)() as session:
            if not accounts.administrators(session):
                yield Finding(True, "there is no administrator (knowledge-system create-admin)")
            if not settings.oidc_passwords and not _has_emergency_account(session, settings):
                names = "MKS_OIDC_EMERGENCY_ACCOUNTS"
                yield Finding(
                    True,
                    f"{names} names no active administrator with a password, for an outage of the provider",
                )
            if settings.production and (known := sorted(_known_to_all(session))):
                yield Finding(True, f"the demo password is publicly known for {', '.join(known)}")
    if settings.production:
        try:
            database.check_backup(settings, now=clock.time())
        except MigrationError as error:
            yield Finding(False, str(error))


def _has_emergency_account(session: Session, settings: AppSettings) -> bool:
    found = select(User.id).where(
        User.username.in_(settings.oidc_emergency_accounts),
        User.role == "admin",
        User.active,
        User.password_hash.is_not(None),
    )
    return session.scalar(found.limit(1)) is not None


def _of_connections(settings: AppSettings, engine: Engine) -> Iterator[Finding]:
    """Check that the pools of all workers fit into the server's ``max_connections``, also during a reload."""
    db = settings.hardening.db
    with engine.connect() as connection:
        allowed = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
    if db.max_connections is not None and db.max_connections > allowed:
        yield Finding(
            False, f"MKS_DB_MAX_CONNECTIONS={db.max_connections}, but the server allows {allowed} connections"
        )
    if db.generations == 1:
        yield Finding(
            False,
            "MKS_DB_GENERATIONS=1: during a reload or release the new workers open connections beside those of "
            "the old ones, more than MKS_DB_MAX_CONNECTIONS",
        )
    pool = engine.pool
    if isinstance(pool, QueuePool) and pool.size() < db.threads:
        yield Finding(
            False,
            f"{db.threads} threads of a worker share {pool.size()} database connections (MKS_DB_MAX_CONNECTIONS, "
            "MKS_GUNICORN_WORKERS, MKS_DB_GENERATIONS)",
        )


def _of_uploads(settings: AppSettings) -> Iterator[Finding]:
    try:
        with FileStore(settings.upload_folder).scratch():
            pass
    except OSError as error:
        yield Finding(True, f"the folder of uploads cannot be written: {error.strerror} (MKS_UPLOADS)")
    if settings.production and not (settings.scan_command or settings.scan_socket):
        yield Finding(False, "files that people hand in are not scanned (MKS_SCAN_SOCKET, MKS_SCAN_COMMAND)")
    try:
        scanner(settings.scan_command, settings.scan_socket).scan(b"knowledge-system check")
    except ScanFailedError as error:
        yield Finding(True, f"the virus scanner does not respond, so every file is refused: {error}")


def _known_to_all(session: Session) -> Iterator[str]:
    """Yield the demo users that still have the demo password."""
    names = [person["username"] for person in stored_content.people()]
    for user in session.scalars(select(User).where(User.username.in_(names), User.active)):
        if user.password_hash and verify_password(DEMO_PASSWORD, user.password_hash):
            yield user.username


def _of_edge(settings: AppSettings) -> Iterator[Finding]:
    """Run the library's own check: framework settings, Redis, order of the wrappers."""
    app = application.create_app(replace(settings, areas_off=settings.areas_off | {"logging"}))
    try:
        result = app.test_cli_runner().invoke(args=["mks", "check"])
        for line in result.output.splitlines():
            kind, _, text = line.partition(": ")
            if text:
                yield Finding(kind.endswith(" error"), f"{kind.partition(' ')[0]} {text}")
    finally:
        app.extensions["knowledge"].close()

"""Celery application: ``celery -A knowledge_system.worker:app worker``, optionally with ``beat``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from knowledge_system import app as application
from knowledge_system.background.queue import Background
from knowledge_system.settings import AppSettings
from mks_hardening import compose
from mks_hardening.contrib.celery_app import celery_app
from mks_hardening.exceptions import SettingsError

if TYPE_CHECKING:
    from celery import Celery

_opened = ExitStack()
"""Resources that stay open as long as the process."""


def _from_env() -> Celery:
    settings = AppSettings.from_env()
    if settings.broker_url is None:
        raise SettingsError(("MKS_CELERY_BROKER_URL is missing: the URL of Celery's broker",))
    engine, _ = _opened.enter_context(application.open_database(settings))
    background = Background(engine, application.session_factory(engine), settings=settings)
    return celery_app(
        background.tasks,
        broker_url=settings.broker_url,
        name="knowledge-system",
        setup_logging=lambda: compose.setup_logging_with_notifications(settings.hardening),
    )


app = _from_env()

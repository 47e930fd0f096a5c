"""System checks of the Django adapter for a deployed project, which ``manage.py check --deploy`` makes."""

from __future__ import annotations

from collections.abc import Iterator

from mks_hardening._core.web.wsgi_stack import wrappers_inside
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import FromDjango, checks, import_string, project
from mks_hardening.contrib.django_app._system_checks import errors
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.wsgi import SessionTimeoutMiddleware

__all__ = ["findings"]


def findings() -> Iterator[FromDjango]:
    """Yield all problems, errors and warnings."""
    yield from _application()
    yield from _places()


def _application() -> Iterator[FromDjango]:
    path: str | None = project().WSGI_APPLICATION
    try:
        stack = wrappers_inside(import_string(path)) if path else iter(())
    except ConfigurationError as error:
        # The same settings fail in both checks; report them once.
        if not errors():  # already reported
            yield checks.Error(f"WSGI_APPLICATION {path}: {error}", id="mks_hardening.E006")
        return
    if path and not any(isinstance(found, SessionTimeoutMiddleware) for found in stack):
        yield checks.Warning(
            f"WSGI_APPLICATION {path} is not hardened: application = hardened(get_wsgi_application())",
            id="mks_hardening.W005",
        )


def _places() -> Iterator[FromDjango]:
    try:
        settings = components().settings
    except ConfigurationError:
        return  # reported by E006
    if settings.core.environment == "development":
        yield checks.Warning(
            "MKS_ENV=development serves this machine only: MKS_ENV=production", id="mks_hardening.W006"
        )
    if settings.core.redis_url is None:
        yield checks.Warning(
            "without MKS_REDIS_URL each process has its own sessions and limits: MKS_REDIS_URL=redis://...",
            id="mks_hardening.W007",
        )

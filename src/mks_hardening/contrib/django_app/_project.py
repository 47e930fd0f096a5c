"""Functions that a project calls in ``wsgi.py``, in ``settings.py``, and for its templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, REQUEST_ID_KEY
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import FromDjango, environ_of
from mks_hardening.exceptions import ConfigurationError

__all__ = ["hardened", "logging_config", "template_context"]

Application = TypeVar("Application", bound=Callable[..., Any])
# Django gives these loggers their own handlers and stops one of them from propagating.
_LOGGERS: Final = ("django", "django.server", "django.request", "django.security", "django.db.backends")


def hardened(application: Application) -> Application:
    """Wrap ``get_wsgi_application()`` or ``get_asgi_application()`` with ``harden_wsgi`` or ``harden_asgi``.

    The allowed hosts are those of ``MKS_ALLOWED_HOSTS``, or else of ``ALLOWED_HOSTS``. ``STATIC_URL`` and
    ``MEDIA_URL`` are public and do not count as activity. Users whose session has ended are redirected to
    ``LOGIN_URL``, if the project has set it to a path. The setting ``MKS_HARDENING`` accepts all options of
    ``harden_wsgi``, and two for limits of all views: ``view_limits``, a list of groups (or ``GroupChoice``) that
    count all requests to views, and ``exempt_namespaces``, URL namespaces whose views they do not count. Under
    ASGI, WebSockets are wrapped as well, for example those of a ``ProtocolTypeRouter``.

    Raises:
        ConfigurationError: one of our system checks reports an error, or ``harden_wsgi`` rejects an option.
    """
    from mks_hardening.contrib.django_app._system_checks import errors

    found = errors()
    if found:
        raise ConfigurationError("; ".join(found))
    wrapped: Application = components().wrap(application)
    return wrapped


def logging_config(app_name: str, **options: FromDjango) -> dict[str, FromDjango]:
    """Return a ``LOGGING`` setting that writes all log records as JSON lines, with secrets redacted.

    Args:
        app_name: name of the application's logger.
        options: options of ``mks_hardening.logging.dict_config``.
    """
    from mks_hardening.logging import dict_config

    config = dict_config(app_name, **options)
    loggers: dict[str, dict[str, object]] = config["loggers"]
    for name in _LOGGERS:
        loggers.setdefault(name, {"handlers": [], "propagate": True})
    return config


def template_context(request: FromDjango) -> dict[str, object]:
    """Context processor with ``csp_nonce``, ``current_csrf_token`` (for ``X-CSRF-Token``) and ``request_id``."""
    environ = environ_of(request)
    return {
        "csp_nonce": environ.get(CSP_NONCE_KEY, ""),
        # Created on use: a token sets a cookie, which pages without forms do not need.
        "current_csrf_token": lambda: str(environ.get(CSRF_TOKEN_KEY, "")),
        "request_id": environ.get(REQUEST_ID_KEY, ""),
    }

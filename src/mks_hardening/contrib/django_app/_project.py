"""What a project calls: in ``wsgi.py``, in ``settings.py``, and in its templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, REQUEST_ID_KEY
from mks_hardening.contrib.django_app._components import parts
from mks_hardening.contrib.django_app._django import FromDjango
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["hardened", "logging_config", "template_context"]

# Django gives them handlers of their own and cuts one off from the root.
_LOGGERS: Final = ("django", "django.server", "django.request", "django.security", "django.db.backends")


def hardened(application: WSGIApplication) -> WSGIApplication:
    """Put ``compose.harden_wsgi`` around ``get_wsgi_application()``.

    Hosts that ``MKS_ALLOWED_HOSTS`` does not name are those of ``ALLOWED_HOSTS``; the folders of ``STATIC_URL`` and
    ``MEDIA_URL`` are public and no activity; people whose session has ended are sent to ``LOGIN_URL``, where the
    project has set it. All options of ``harden_wsgi`` may stand in the setting ``MKS_HARDENING``.

    Raises:
        ConfigurationError: a system check of ours finds an error, or whatever ``harden_wsgi`` refuses.
    """
    from mks_hardening.contrib.django_app._system_checks import errors

    found = errors()
    if found:
        raise ConfigurationError("; ".join(found))
    return parts().wrap(application)


def logging_config(app_name: str, **options: FromDjango) -> dict[str, FromDjango]:
    """``LOGGING`` of the project: everything as our JSON lines, with secrets taken out.

    Args:
        app_name: name of the application's logger.
        options: those of ``mks_hardening.logging.dict_config``.
    """
    from mks_hardening.logging import dict_config

    config = dict_config(app_name, **options)
    loggers: dict[str, dict[str, object]] = config["loggers"]
    for name in _LOGGERS:
        loggers.setdefault(name, {"handlers": [], "propagate": True})
    return config


def template_context(request: FromDjango) -> dict[str, object]:
    """A context processor: ``csp_nonce``, ``current_csrf_token`` (for ``X-CSRF-Token``) and ``request_id``."""
    environ: dict[str, object] = request.META
    return {
        "csp_nonce": environ.get(CSP_NONCE_KEY, ""),
        # Made when it is asked for: a token sets a cookie, which pages without forms do not need.
        "current_csrf_token": lambda: str(environ.get(CSRF_TOKEN_KEY, "")),
        "request_id": environ.get(REQUEST_ID_KEY, ""),
    }

"""Components of a hardened Django project: created on first use from the setting ``MKS_HARDENING``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from mks_hardening import compose
from mks_hardening._core.checks import strings
from mks_hardening._core.process.after_fork import ModuleLock
from mks_hardening._core.web.wsgi_stack import is_asgi, wrappers_inside
from mks_hardening.asgi import _response_costs as asgi_costs
from mks_hardening.contrib._limited_views import ViewLimit, limiter_of
from mks_hardening.contrib.django_app._django import REDIRECT_FIELD_NAME, FromDjango, project
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import SIGN_IN_LIMITS
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import GroupChoice, SessionTimeoutMiddleware
from mks_hardening.wsgi import _response_costs as wsgi_costs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mks_hardening.cache import MemoryCache, RedisCache
    from mks_hardening.contrib._limited_views import Groups
    from mks_hardening.protocols import Limiter, SessionStore

__all__ = ["BACKEND", "Options", "ProjectComponents", "components", "reset_components"]

Options: TypeAlias = Mapping[str, FromDjango]

SETTING: Final = "MKS_HARDENING"
BACKEND: Final = "mks_hardening.contrib.django_app.login_limits.LoginLimitBackend"
_LOGIN_URL: Final = "/accounts/login/"  # Django's default, where few projects have a page
_lock: Final = ModuleLock()
_made: list[ProjectComponents] = []


class ProjectComponents:
    """Settings, stores and middleware of a project.

    Args:
        options: the setting ``MKS_HARDENING``: ``settings``, ``store``, ``limiter`` and ``groups`` as in Flask's
            ``Hardening``; ``view_limits``, groups that count the requests to all views together, and
            ``exempt_namespaces``, URL namespaces whose views they do not count; and further options of
            ``compose.harden_wsgi``.

    Attributes:
        settings: the settings; the allowed hosts default to ``ALLOWED_HOSTS``. In development they are relaxed for
            this machine.
        store: the session store.
        limiter: limiter for ``limit``.
        view_limits: the limits of all views.
        exempt_namespaces: URL namespaces that they do not apply to, such as ``"monitoring"`` or ``"api:internal"``.

    Raises:
        ConfigurationError: an option is invalid.
    """

    def __init__(self, options: Options) -> None:
        given = dict(options)
        settings = _with_hosts(given.pop("settings", None) or HardeningSettings.from_env())
        # Here, so that only one warning is logged, however often the checks call wrap().
        self.settings: HardeningSettings = (
            compose.for_development(settings) if settings.core.environment == "development" else settings
        )
        self.store: SessionStore = given.pop("store", None) or compose.session_store(self.settings)
        limiter, groups = given.pop("limiter", None), given.pop("groups", None)
        if limiter is None and BACKEND in project().AUTHENTICATION_BACKENDS:
            groups = {**SIGN_IN_LIMITS, **cast("Groups", groups or {})}
        self.limiter: Limiter = limiter_of(self.settings, limiter, groups)
        # Here too: two lists would count each event twice.
        if self.settings.wsgi.bans and "bans" not in given:
            given["bans"] = compose.ban_list(self.settings)
        self.view_limits: tuple[ViewLimit, ...] = tuple(
            ViewLimit(
                lambda _: self.limiter,
                group,
                key=None,
                cost=1,
                methods=None,
                exempt=None,
                final_cost=None,
                is_sync=True,
            )
            for group in _listed(given.pop("view_limits", ()))
        )
        self.exempt_namespaces: frozenset[str] = frozenset(
            strings(given.pop("exempt_namespaces", ()), parameter="exempt_namespaces", of="URL namespaces")
        )
        self._options = given
        self._sessions: SessionTimeoutMiddleware | None = None
        self._caches: dict[str, RedisCache | MemoryCache] = {}

    def wrap(self, app: FromDjango) -> FromDjango:
        """Return a WSGI or ASGI application wrapped with all middleware."""
        given = dict(self._options)
        static = tuple(_folder(getattr(project(), name, None)) for name in ("STATIC_URL", "MEDIA_URL"))
        folders = tuple(folder for folder in static if folder)
        given["public_paths"] = (*folders, *given.get("public_paths", ()))
        given["passive_paths"] = (*folders, *given.get("passive_paths", ()))
        login: object = project().LOGIN_URL
        # Resolving a route name needs the URL configuration, which is not loaded when wsgi.py calls this.
        if isinstance(login, str) and login.startswith("/") and login != _LOGIN_URL:
            given.setdefault("sign_in_url", f"{login}?{REDIRECT_FIELD_NAME}={{next}}")
        given.update(store=self.store, limiter=self.limiter)
        if is_asgi(app):
            return compose.harden_asgi(asgi_costs.ResponseCostsMiddleware(app), self.settings, **given)
        return compose.harden_wsgi(wsgi_costs.ResponseCostsMiddleware(app), self.settings, **given)

    @property
    def sessions(self) -> SessionTimeoutMiddleware:
        """Middleware that checks sessions outside the requests of ``hardened``: in tests and commands."""
        if self._sessions is None:
            stack = wrappers_inside(self.wrap(_nothing))
            self._sessions = next(found for found in stack if isinstance(found, SessionTimeoutMiddleware))
        return self._sessions

    def cache(self, location: str) -> RedisCache | MemoryCache:
        """Return the cache at a Redis URL, or that of the settings if empty; shared by all threads."""
        with _lock:
            if location not in self._caches:
                settings = self.settings
                if location:
                    settings = replace(settings, cache=replace(settings.cache, url=location))
                self._caches[location] = compose.cache_backend(settings)
            return self._caches[location]


def components() -> ProjectComponents:
    """Return the components of this project."""
    with _lock:
        if not _made:
            _made.append(ProjectComponents(cast("Options", getattr(project(), SETTING, None) or {})))
        return _made[0]


def reset_components(*, setting: str = SETTING, **_: object) -> None:
    """Discard the components, so that they are created again after a test has changed the settings."""
    if setting in {SETTING, "ALLOWED_HOSTS", "AUTHENTICATION_BACKENDS", "LOGIN_URL"}:
        _made.clear()


def _with_hosts(settings: HardeningSettings) -> HardeningSettings:
    hosts: list[str] = list(project().ALLOWED_HOSTS)
    # "*" makes Django trust the Host field, which is what the list is meant to prevent.
    if settings.wsgi.allowed_hosts or not hosts or "*" in hosts:
        return settings
    return replace(settings, wsgi=replace(settings.wsgi, allowed_hosts=tuple(hosts)))


def _listed(groups: object) -> tuple[str | GroupChoice, ...]:
    if isinstance(groups, str | GroupChoice) or not isinstance(groups, Iterable):
        raise ConfigurationError(
            "view_limits must be a list of groups of the limiter", parameter="view_limits"
        )
    return tuple(cast("Iterable[str | GroupChoice]", groups))


def _folder(url: str | None) -> str | None:
    """Return the URL if it is a folder of this host other than the root, else ``None``."""
    return url if url and url.startswith("/") and url.endswith("/") and len(url) > 1 else None


def _nothing(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [])
    return []

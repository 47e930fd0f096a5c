"""System checks: ids are stable between versions, and each message says how to fix the problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mks_hardening import compose
from mks_hardening._core.check_package import check_tool
from mks_hardening._core.checks import offers
from mks_hardening.contrib._limited_views import check_group
from mks_hardening.contrib.django_app._components import BACKEND, components
from mks_hardening.contrib.django_app._django import FromDjango, checks, import_string, project, validate_host
from mks_hardening.contrib.django_app._hardening_middleware import HardeningMiddleware
from mks_hardening.contrib.django_app._view_limits import unknown_groups
from mks_hardening.contrib.django_app.sessions import SessionStore
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.security import SIGN_IN_LIMITS

__all__ = ["check_deployment", "check_project", "errors"]

OURS: Final = "mks_hardening.contrib.django_app.HardeningMiddleware"
_SESSIONS: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_SECURITY: Final = "django.middleware.security.SecurityMiddleware"
_FRAMES: Final = "django.middleware.clickjacking.XFrameOptionsMiddleware"
_NEEDS_SESSION: Final = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
_BELIEVERS: Final = ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT")
# Settings of SecurityMiddleware for header fields and redirects, with the value that switches each off.
_DOUBLED: Final[dict[str, object]] = {
    "SECURE_HSTS_SECONDS": 0,
    "SECURE_CONTENT_TYPE_NOSNIFF": False,
    "SECURE_REFERRER_POLICY": None,
    "SECURE_CROSS_ORIGIN_OPENER_POLICY": None,
    "SECURE_SSL_REDIRECT": False,
    "SECURE_CSP": {},
    "SECURE_CSP_REPORT_ONLY": {},
}
_OF_DEBUG: Final = (".localhost", "127.0.0.1", "[::1]")  # Django's defaults if ALLOWED_HOSTS is empty
_OF_TESTS: Final = "testserver"  # added by Django's test environment, which uses no other host
# Settings of Django's own cookie, which is not sent: our cookie has its own name and attributes.
_UNUSED: Final = {
    "SESSION_COOKIE_NAME": "sessionid",
    "SESSION_COOKIE_DOMAIN": None,
    "SESSION_COOKIE_PATH": "/",
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_HTTPONLY": True,
}


def check_project(app_configs: object = None, **_: object) -> list[FromDjango]:  # noqa: ARG001 - Django's signature
    """Return the problems in settings and views."""
    return [*_middleware(), *_origin(), *_hardening(), *_logins(), *_hosts(), *_doubled(), *_session()]


def check_deployment(app_configs: object = None, **_: object) -> list[FromDjango]:  # noqa: ARG001 - Django's signature
    """Return the problems that matter only in a deployed project, which ``mks-check`` finds."""
    try:
        return list(check_tool("django")())
    except MissingDependencyError as error:
        return [checks.Info(str(error), id="mks_hardening.I001")]


def errors() -> list[str]:
    """Return the messages of ``check_project`` with the level error."""
    return [f"{found.id}: {found.msg}" for found in check_project() if found.level >= checks.ERROR]


def _middleware() -> Iterator[FromDjango]:
    names: list[str] = list(project().MIDDLEWARE)
    ours = [name for name in names if _is_ours(name)]
    if not ours:
        yield _error("E001", f"HardeningMiddleware is missing: MIDDLEWARE = [{OURS!r}, ...]")
        return
    if len(ours) > 1:
        yield _error("E002", f"two sessions at once: keep only one of {ours} in MIDDLEWARE")
    if _SESSIONS in names:
        yield _error("E002", f"two sessions at once: remove {_SESSIONS!r} from MIDDLEWARE")
    # They read request.session when they process the request, and ours has to set it before.
    early = [name for name in _NEEDS_SESSION if name in names and names.index(name) < names.index(ours[0])]
    if early:
        yield _error("E003", f"wrong order of middleware: put {OURS!r} before {early[0]!r} in MIDDLEWARE")
    engine = import_string(f"{project().SESSION_ENGINE}.SessionStore")
    if not (isinstance(engine, type) and issubclass(engine, SessionStore)):
        yield _error(
            "E004", "two sessions at once: SESSION_ENGINE = 'mks_hardening.contrib.django_app.sessions'"
        )


def _origin() -> Iterator[FromDjango]:
    for name in _BELIEVERS:
        if getattr(project(), name, None):
            yield _error(
                "E005",
                f"two sources of the client's address: remove {name}; Django already gets "
                "what trusted proxies (MKS_TRUSTED_PROXIES) report",
            )


def _hardening() -> Iterator[FromDjango]:
    try:
        components().wrap(_unused_application)
    except ConfigurationError as error:
        yield _error("E006", str(error))
        return
    for message in unknown_groups():
        yield _error("E007", message)


def _logins() -> Iterator[FromDjango]:
    names = list(project().AUTHENTICATION_BACKENDS)
    if BACKEND not in names:
        return
    if names[0] != BACKEND or len(names) == 1:
        yield _error(
            "E008",
            f"AUTHENTICATION_BACKENDS must begin with {BACKEND!r}, followed by the backends that check credentials",
        )
    try:
        limiter = components().limiter
        offers(limiter, "reserve", "reset", parameter="limiter", kind="a RateLimiter, for LoginLimitBackend")
        for group in SIGN_IN_LIMITS:
            check_group(limiter, group, view="LoginLimitBackend", fix="SIGN_IN_LIMITS")
    except ConfigurationError as error:
        yield _error("E008", str(error))


def _hosts() -> Iterator[FromDjango]:
    """Find hosts that the middleware accepts but Django refuses, also as the origin of forms."""
    try:
        answered = components().settings.wsgi.allowed_hosts
    except ConfigurationError:
        return  # reported by E006
    known = list(project().ALLOWED_HOSTS) or (_OF_DEBUG if project().DEBUG else [])
    if _OF_TESTS in known:
        return
    # For the names of this machine, one that Django accepts is enough.
    local = [host for host in answered if host in compose.THIS_MACHINE]
    refused = [host for host in answered if host not in local and not _is_known(host, known)]
    if local and not any(_is_known(host, known) for host in local):
        refused += local
    if refused:
        yield _warning(
            "W008",
            f'Django refuses {", ".join(refused)}, which the middleware accepts: 400, or 403 with "Origin checking '
            f'failed" for forms; ALLOWED_HOSTS = {[*project().ALLOWED_HOSTS, *map(_in_django, refused)]}',
        )


def _is_known(host: str, known: Sequence[str]) -> bool:
    return validate_host(_in_django(f"any{host}" if host.startswith(".") else host), known)


def _in_django(host: str) -> str:
    """Add the brackets with which Django writes IPv6 addresses."""
    return f"[{host}]" if ":" in host else host


def _doubled() -> Iterator[FromDjango]:
    names = list(project().MIDDLEWARE)
    if _SECURITY in names:
        sent = [name for name, off in _DOUBLED.items() if getattr(project(), name, off) != off]
        if sent:
            yield _warning(
                "W001",
                f"two sources of security headers: {', '.join(sent)} of SecurityMiddleware override ours; "
                f"remove {_SECURITY!r} from MIDDLEWARE and set MKS_HSTS_MAX_AGE, MKS_FORCE_HTTPS or a HeaderPolicy",
            )
    if _FRAMES in names:
        yield _warning(
            "W002",
            f"two sources of X-Frame-Options: remove {_FRAMES!r} from MIDDLEWARE",
        )


def _session() -> Iterator[FromDjango]:
    unused = [name for name, usual in _UNUSED.items() if getattr(project(), name, usual) != usual]
    if unused:
        yield _warning(
            "W003",
            f"{', '.join(unused)} of Django's cookie, which is not sent: MKS_HARDENING = {{'session_cookie': ...}}",
        )
    if "Pickle" in str(project().SESSION_SERIALIZER):
        yield _warning("W004", "SESSION_SERIALIZER is not used: sessions hold JSON values only")


def _is_ours(name: str) -> bool:
    found: object = import_string(name)
    return isinstance(found, type) and issubclass(found, HardeningMiddleware)


def _unused_application(_: object, __: object) -> list[bytes]:
    return []


def _error(number: str, message: str) -> FromDjango:
    return checks.Error(message, id=f"mks_hardening.{number}")


def _warning(number: str, message: str) -> FromDjango:
    return checks.Warning(message, id=f"mks_hardening.{number}")

"""The composition root: all areas put together in the right order, from one settings object.

Everything here can be done by hand with the public classes; this module is how we would do it.
"""

from __future__ import annotations

import logging as stdlib_logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mks_hardening._core.deadline import start_request_budget
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.redis_client import RedisClient
    from mks_hardening.cache import MemoryCache, RedisCache
    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import RateLimiter
    from mks_hardening.wsgi import HeaderPolicy, RateLimitRule
    from mks_hardening.wsgi.health import Checks

__all__ = [
    "cache_backend",
    "harden_wsgi",
    "rate_limiter",
    "session_store",
    "setup_logging_with_notifications",
]


def harden_wsgi(
    app: WSGIApplication,
    settings: HardeningSettings,
    *,
    store: SessionStore | None = None,
    limiter: Limiter | None = None,
    rate_limits: Iterable[RateLimitRule] = (),
    required: Checks = (),
    optional: Checks = (),
    headers: HeaderPolicy | None = None,
    allowed_origins: Iterable[str] | None = None,
    sign_in_url: str | None = None,
    public_paths: Iterable[str] = (),
    passive_paths: Iterable[str] = (),
    api_paths: Iterable[str] = (),
    csrf_exempt_paths: Iterable[str] = (),
    strip_cookies: Iterable[str] = (),
    **session_options: Any,
) -> WSGIApplication:
    """Put every wrapper of the edge around ``app``.

    From the outside in: trust (everything below sees the real client), headers (every answer has them, a 500 too),
    record (everything below has a request id and is recorded, refusals too), HTTPS and hosts, health (probes cost
    no session), limits, session, CSRF. Each request gets one budget for all its store calls.

    Args:
        app: the application.
        settings: allowed hosts, proxies, time-outs and so on.
        store: where sessions are kept; from ``session_store(settings)`` by default.
        limiter: counts for ``rate_limits``.
        rate_limits: rules applied before the session is looked up.
        required: readiness checks without which the instance is not ready.
        optional: readiness checks whose failure only degrades it.
        headers: policy; the preset of the settings by default.
        allowed_origins: origins whose pages may send unsafe requests; by default the allowed hosts, over https.
            Needed where ``allowed_hosts`` has wildcards alone: those name no origin.
        sign_in_url: where people are sent whose session has ended.
        public_paths: paths that work with a dead cookie.
        passive_paths: paths that poll and do not keep a session alive.
        api_paths: paths that are refused over plain http instead of redirected (ASVS 5.0 V4.1.2).
        csrf_exempt_paths: paths without the CSRF check, for callers that authenticate otherwise.
        strip_cookies: cookies that are cleared together with the session's.
        session_options: further parameters of ``SessionTimeoutMiddleware``.

    Raises:
        ConfigurationError: no allowed hosts, limits without a limiter, or whatever a wrapper refuses.
    """
    from mks_hardening import wsgi

    edge = settings.wsgi
    rules = tuple(rate_limits)
    if rules and limiter is None:
        raise ConfigurationError("rate_limits need a limiter", parameter="limiter")
    if not edge.allowed_hosts:
        raise ConfigurationError("settings.wsgi.allowed_hosts must name the hosts", parameter="allowed_hosts")
    origins = tuple(_origins(settings)) if allowed_origins is None else tuple(allowed_origins)
    app = wsgi.CSRFMiddleware(app, allowed_origins=origins, exempt_paths=csrf_exempt_paths)
    app = wsgi.SessionTimeoutMiddleware(
        app,
        store=store if store is not None else session_store(settings),
        idle_timeout=edge.session_idle_timeout,
        absolute_timeout=edge.session_absolute_timeout,
        warn_before=edge.session_warn_before,
        max_sessions=edge.session_max,
        sign_in_url=sign_in_url,
        public_paths=public_paths,
        passive_paths=passive_paths,
        strip_cookies=strip_cookies,
        **session_options,
    )
    if limiter is not None and rules:
        app = wsgi.RateLimitMiddleware(app, limiter=limiter, rules=rules)
    app = wsgi.HealthMiddleware(app, required=required, optional=optional)
    app = wsgi.HTTPSRedirectMiddleware(
        app,
        allowed_hosts=edge.allowed_hosts,
        force_https=edge.force_https,
        https_port=edge.https_port,
        canonical_host=edge.canonical_host,
        api_paths=api_paths,
    )
    app = wsgi.RequestLoggingMiddleware(_RequestBudget(app, seconds=settings.core.store_budget))
    app = wsgi.SecurityHeadersMiddleware(app, policy=headers if headers is not None else _headers(settings))
    return wsgi.TrustedProxyMiddleware(app, trust=_trust(settings))


def session_store(settings: HardeningSettings) -> SessionStore:
    """Sessions in Redis where a URL is set, in this process otherwise."""
    from mks_hardening.wsgi import MemorySessionStore, RedisSessionStore

    core = settings.core
    if core.redis_url is None:
        return MemorySessionStore()
    return RedisSessionStore(
        core.redis_url, store_budget=core.store_budget, allow_plaintext=core.allow_plaintext
    )


def cache_backend(settings: HardeningSettings) -> RedisCache | MemoryCache:
    """A cache in Redis where a URL is set, in this process otherwise."""
    from mks_hardening.cache import MemoryCache, RedisCache

    url = settings.cache.url or settings.core.redis_url
    if url is None:
        return MemoryCache()
    return RedisCache(
        url,
        namespace=settings.cache.namespace,
        default_ttl=settings.cache.default_ttl,
        signing_keys=settings.cache.signing_keys or None,
        store_budget=settings.core.store_budget,
        allow_plaintext=settings.core.allow_plaintext,
    )


def rate_limiter(
    settings: HardeningSettings, groups: Mapping[str, Any] | None = None, **options: Any
) -> RateLimiter:
    """Limits counted in Redis where a URL is set, in this process otherwise.

    Args:
        settings: where Redis is.
        groups: groups of limits; ``DEFAULT_RATE_LIMITS`` when left out.
        options: further parameters of ``RateLimiter``.
    """
    from mks_hardening.security import DEFAULT_RATE_LIMITS, RateLimiter

    core = settings.core
    return RateLimiter(
        DEFAULT_RATE_LIMITS if groups is None else groups,
        storage=settings.security.rate_limit_url or core.redis_url or "memory://",
        store_budget=core.store_budget,
        allow_plaintext=core.allow_plaintext,
        **options,
    )


def setup_logging_with_notifications(settings: HardeningSettings) -> stdlib_logging.Logger:
    """Logs as the settings say, with an alert by mail and Slack for each kind of error.

    Returns:
        The application's logger.
    """
    from mks_hardening.logging import Rotation, setup_logging

    log, core = settings.logging, settings.core
    rotation = None
    if log.max_bytes is not None:
        rotation = Rotation(max_bytes=log.max_bytes, backups=log.backups)
    return setup_logging(
        core.app_name,
        level=log.level,
        log_file=log.file,
        rotation=rotation,
        handlers=_alert_handlers(settings),
        schema=log.schema,
        queue=log.queue,
        environment=core.environment,
    )


class _RequestBudget:
    """Starts the budget for store calls; inside the record's context, so that it ends with the request."""

    __slots__ = ("_app", "_seconds")

    def __init__(self, app: WSGIApplication, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_request_budget(self._seconds)
        return self._app(environ, start_response)


def _trust(settings: HardeningSettings) -> Any:
    from mks_hardening.wsgi import ProxyTrust

    edge = settings.wsgi
    return ProxyTrust(edge.trusted_proxies, family=edge.proxy_family, hops=edge.proxy_hops)


def _headers(settings: HardeningSettings) -> HeaderPolicy:
    from mks_hardening.wsgi import HSTS, HeaderPolicy

    preset = {"web": HeaderPolicy.web, "api": HeaderPolicy.api, "strict": HeaderPolicy.strict}
    edge = settings.wsgi
    return preset[edge.header_preset](hsts=HSTS(edge.hsts_max_age) if edge.hsts else None)


def _origins(settings: HardeningSettings) -> Iterable[str]:
    """The allowed hosts as origins; a wildcard names no origin and must be spelled out by the caller."""
    edge = settings.wsgi
    port = "" if edge.https_port == 443 else f":{edge.https_port}"
    for host in edge.allowed_hosts:
        if host.startswith("."):
            continue
        literal = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
        has_port = ":" in literal.rpartition("]")[2]
        yield f"https://{literal}" if has_port else f"https://{literal}{port}"


def _alert_handlers(settings: HardeningSettings) -> list[stdlib_logging.Handler]:
    from mks_hardening import notify

    told, core = settings.notify, settings.core
    policy = notify.AlertPolicy(dedup_window=told.alert_window, shared_store=_shared_store(settings))
    common: dict[str, Any] = {
        "level": told.alert_level,
        "policy": policy,
        "lang": told.alert_language,
        "environment": core.environment,
        "allow_plaintext": core.allow_plaintext,
    }
    handlers: list[stdlib_logging.Handler] = []
    if told.smtp_host is not None and told.alert_from is not None:
        handlers.append(
            notify.EmailNotificationHandler(
                told.smtp_host,
                smtp_port=told.smtp_port,
                from_addr=told.alert_from,
                to_addrs=told.alert_to,
                username=told.smtp_user,
                password=told.smtp_password,
                security=told.smtp_security,
                ca_file=told.smtp_ca_file,
                subject_prefix=f"[{core.app_name}]",
                spool=_spool(settings, "email"),
                **common,
            )
        )
    if told.slack_webhook_url is not None:
        handlers.append(
            notify.SlackNotificationHandler(
                told.slack_webhook_url, channel=told.slack_channel, spool=_spool(settings, "slack"), **common
            )
        )
    for handler in handlers:
        handler.addFilter(_is_news)
    return handlers


def _is_news(record: stdlib_logging.LogRecord) -> bool:
    """Whether a record tells operators something: a 5xx that the application sent itself was reported by it."""
    return record.name != "mks_hardening.request" or getattr(record, "outcome", "") == "error"


def _shared_store(settings: HardeningSettings) -> RedisClient | None:
    from mks_hardening._core.redis_client import RedisClient

    core = settings.core
    if core.redis_url is None:
        return None
    return RedisClient(core.redis_url, name="alerts", allow_plaintext=core.allow_plaintext)


def _spool(settings: HardeningSettings, channel: str) -> str | None:
    folder = settings.notify.alert_spool
    return None if folder is None else f"{folder}/{channel}"

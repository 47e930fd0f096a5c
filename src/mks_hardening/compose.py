"""Composition root: all areas connected in the correct order, from one settings object.

You can do everything here yourself with the public classes; this module is the recommended way.
"""

from __future__ import annotations

import logging as stdlib_logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core.checks import instance, instances, mapping, offers, strings
from mks_hardening._core.hooks import observe_until_collected
from mks_hardening._core.options import distribute_options
from mks_hardening._core.resilience.budget import (
    LIMITS_BUDGET,
    current_budget,
    restore_budget,
    start_request_budget,
)
from mks_hardening._core.web.asgi_scope import is_request
from mks_hardening._core.web.wsgi_stack import class_names_inside, wsgi_application
from mks_hardening._edge.cors.cors_policy import CORSPolicy, CORSRule
from mks_hardening._edge.csrf.same_origin import checked_origins
from mks_hardening.exceptions import ConfigurationError, SettingsWarning
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.origin.proxy_trust import ProxyTrust
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.client_rules.ban_list import BanList
    from mks_hardening._edge.client_rules.ban_rule import BanRule
    from mks_hardening._edge.headers.header_policy import HeaderPolicy
    from mks_hardening._edge.headers.header_rule import HeaderRule
    from mks_hardening._edge.health.readiness import Checks
    from mks_hardening._edge.refusals import OnRefusal
    from mks_hardening.cache import MemoryCache, RedisCache
    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import RateLimiter
    from mks_hardening.wsgi import RateLimitRule

__all__ = [
    "ban_list",
    "cache_backend",
    "harden_asgi",
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
    header_rules: Iterable[HeaderRule] = (),
    on_refusal: OnRefusal | None = None,
    allowed_origins: Iterable[str | CORSPolicy] | None = None,
    sign_in_url: str | None = None,
    public_paths: Iterable[str] = (),
    passive_paths: Iterable[str] = (),
    api_paths: Iterable[str] = (),
    csrf_exempt_paths: Iterable[str] = (),
    strip_cookies: Iterable[str] = (),
    **options: Any,
) -> WSGIApplication:
    """Wrap ``app`` in all middleware of this package.

    From the outside in: proxy trust (everything below sees the real client), security headers (on every response,
    including a 500), CORS, request log (everything below has a request id and is logged, including rejections),
    HTTPS and hosts, health (probes need no session), maintenance mode, blocked clients, limits of request sizes,
    limits of concurrent requests, deadline, rate limits, session, CSRF, cookie policy, response cache. CORS,
    maintenance mode, blocked clients, request sizes, concurrency, deadline and cookie policy take part only if they
    have an option or a setting (``MKS_CORS_ORIGINS``, ``MKS_MAINTENANCE_FILE``, ``MKS_BANS``,
    ``MKS_DENY_NETWORKS``, ``MKS_ALLOW_NETWORKS``, ``MKS_CLIENT_RULES_FILE``, ``MKS_MAX_BODY``,
    ``MKS_MAX_REQUESTS``, ``MKS_MAX_REQUESTS_PER_CLIENT``, ``MKS_REQUEST_TIMEOUT``, ``MKS_COOKIE_POLICY``), the
    response cache only with ``cache_rules``. Each request has one time budget for all its store calls.

    With ``MKS_ENV=development`` it works locally without further settings: the hosts ``localhost``, ``.localhost``,
    ``127.0.0.1`` and ``::1`` are also allowed, nothing is redirected to https, Strict-Transport-Security is not
    sent and cookies are not ``Secure``. A warning is logged.

    Args:
        app: the application.
        settings: allowed hosts, proxies, timeouts and so on. Its origins and paths are added to those given here.
        store: session store; ``session_store(settings)`` by default.
        limiter: rate limiter for ``rate_limits``.
        rate_limits: rules applied before the session is loaded.
        required: readiness checks without which the instance is not ready.
        optional: readiness checks whose failure only degrades it.
        headers: header policy; the preset of the settings by default.
        header_rules: additions to it for certain paths, before those of ``MKS_HEADERS_FILE``.
        on_refusal: called with the environ and the ``Refusal`` of any middleware; may return a ``CustomResponse``.
        allowed_origins: other origins that may send unsafe requests, or a ``CORSPolicy`` with ``credentials``; the
            host's own origin is always allowed.
        sign_in_url: URL to which users whose session has ended are redirected.
        public_paths: paths that work with the cookie of an ended session.
        passive_paths: paths that are polled and do not extend a session.
        api_paths: paths that are rejected over plain http instead of redirected (ASVS 5.0 V4.1.2).
        csrf_exempt_paths: paths without the CSRF check, for clients that authenticate differently.
        strip_cookies: cookies that end together with the session, for example the framework's session cookie.
        options: any other option of a middleware; it takes precedence over the settings. An option name that
            several middleware classes share gets the prefix ``https_``, ``csrf_``, ``session_``, ``limit_``,
            ``health_``, ``record_``, ``cors_``, ``request_``, ``client_``, ``concurrency_``, ``timeout_``,
            ``cookie_``, ``cache_`` or ``maintenance_``, for example ``cors_policy``, ``request_limits``,
            ``client_rules``, ``bans``, ``concurrency_rules`` with ``concurrency_limiter``, ``timeout_rules``,
            ``cookie_policy``, ``cache_rules`` (with ``cache``; ``cache_backend(settings)`` by default) and
            ``maintenance_switch``. ``clock`` without a prefix is the clock of sessions. Origins that a CORS policy
            allows to send credentials are also allowed by the CSRF check. Rules of ``bans`` that name events count
            them without a call of ``add_observer``; ``client_exempt`` is called before the session is loaded.

    Raises:
        ConfigurationError: no allowed hosts, limits without a limiter, an unknown option, an application that is
            already wrapped by one of the middleware classes, if two of it would disturb each other, or any error
            of a middleware's own checks.
    """
    from mks_hardening import wsgi

    _reject_wrapped_app(app, caller="harden_wsgi")
    wsgi_application(app)
    _reject_asgi_options(options)
    hardened = _harden(
        wsgi,
        _RequestBudget,
        app,
        settings,
        store=store,
        limiter=limiter,
        rate_limits=rate_limits,
        required=required,
        optional=optional,
        headers=headers,
        header_rules=header_rules,
        on_refusal=on_refusal,
        allowed_origins=allowed_origins,
        sign_in_url=sign_in_url,
        public_paths=public_paths,
        passive_paths=passive_paths,
        api_paths=api_paths,
        csrf_exempt_paths=csrf_exempt_paths,
        strip_cookies=strip_cookies,
        options=options,
    )
    return cast("WSGIApplication", hardened)


def harden_asgi(
    app: ASGIApplication,
    settings: HardeningSettings,
    *,
    store: SessionStore | None = None,
    limiter: Limiter | None = None,
    rate_limits: Iterable[RateLimitRule] = (),
    required: Checks = (),
    optional: Checks = (),
    headers: HeaderPolicy | None = None,
    header_rules: Iterable[HeaderRule] = (),
    on_refusal: OnRefusal | None = None,
    allowed_origins: Iterable[str | CORSPolicy] | None = None,
    sign_in_url: str | None = None,
    public_paths: Iterable[str] = (),
    passive_paths: Iterable[str] = (),
    api_paths: Iterable[str] = (),
    csrf_exempt_paths: Iterable[str] = (),
    strip_cookies: Iterable[str] = (),
    **options: Any,
) -> ASGIApplication:
    """Wrap ``app`` in all middleware of ``mks_hardening.asgi``, for HTTP and for WebSockets.

    The order, the settings and the parameters are those of ``harden_wsgi``; ``on_refusal`` gets the scope. The time
    budget of a request ends with the head of the response, or when a WebSocket is accepted: after that, and in
    background tasks, each store call has its own.

    Args:
        app: the application.
        settings: allowed hosts, proxies, timeouts and so on. Its origins and paths are added to those given here.
        store: session store; ``session_store(settings)`` by default.
        limiter: rate limiter for ``rate_limits``.
        rate_limits: rules applied before the session is loaded.
        required: readiness checks without which the instance is not ready; they may be ``async def``.
        optional: readiness checks whose failure only degrades it.
        headers: header policy; the preset of the settings by default.
        header_rules: additions to it for certain paths, before those of ``MKS_HEADERS_FILE``.
        on_refusal: called with the scope and the ``Refusal`` of any middleware; may return a ``CustomResponse``.
        allowed_origins: other origins that may send unsafe requests and open WebSockets, or a ``CORSPolicy`` with
            ``credentials``; the host's own origin is always allowed.
        sign_in_url: URL to which users whose session has ended are redirected.
        public_paths: paths that work with the cookie of an ended session.
        passive_paths: paths that are polled and do not extend a session.
        api_paths: paths that are rejected over plain http instead of redirected (ASVS 5.0 V4.1.2).
        csrf_exempt_paths: paths without the CSRF check, for clients that authenticate differently.
        strip_cookies: cookies that end together with the session, for example the framework's session cookie.
        options: any other option of a middleware, as for ``harden_wsgi``.

    Raises:
        ConfigurationError: as for ``harden_wsgi``; also a WSGI application.
    """
    from mks_hardening import asgi

    _reject_wrapped_app(app, caller="harden_asgi")
    hardened = _harden(
        asgi,
        _ASGIRequestBudget,
        app,
        settings,
        store=store,
        limiter=limiter,
        rate_limits=rate_limits,
        required=required,
        optional=optional,
        headers=headers,
        header_rules=header_rules,
        on_refusal=on_refusal,
        allowed_origins=allowed_origins,
        sign_in_url=sign_in_url,
        public_paths=public_paths,
        passive_paths=passive_paths,
        api_paths=api_paths,
        csrf_exempt_paths=csrf_exempt_paths,
        strip_cookies=strip_cookies,
        options=options,
    )
    return cast("ASGIApplication", hardened)


def _harden(
    shell: ModuleType,
    request_budget: Callable[..., object],
    app: object,
    settings: HardeningSettings,
    *,
    store: SessionStore | None,
    limiter: Limiter | None,
    rate_limits: Iterable[RateLimitRule],
    required: Checks,
    optional: Checks,
    headers: HeaderPolicy | None,
    header_rules: Iterable[HeaderRule],
    on_refusal: OnRefusal | None,
    allowed_origins: Iterable[str | CORSPolicy] | None,
    sign_in_url: str | None,
    public_paths: Iterable[str],
    passive_paths: Iterable[str],
    api_paths: Iterable[str],
    csrf_exempt_paths: Iterable[str],
    strip_cookies: Iterable[str],
    options: Mapping[str, object],
) -> object:
    """Wrap an application in the middleware of ``mks_hardening.wsgi`` or ``mks_hardening.asgi``."""
    kinds: dict[str, type] = {
        "https": shell.HTTPSRedirectMiddleware,
        "csrf": shell.CSRFMiddleware,
        "session": shell.SessionTimeoutMiddleware,
        "limit": shell.RateLimitMiddleware,
        "health": shell.HealthMiddleware,
        "record": shell.RequestLoggingMiddleware,
        "cors": shell.CORSMiddleware,
        "request": shell.RequestLimitsMiddleware,
        "maintenance": shell.MaintenanceMiddleware,
        "client": shell.ClientRulesMiddleware,
        "concurrency": shell.ConcurrencyMiddleware,
        "timeout": shell.RequestTimeoutMiddleware,
        "cookie": shell.CookiePolicyMiddleware,
        "cache": shell.ResponseCacheMiddleware,
    }
    instance(settings, HardeningSettings, parameter="settings")
    given = distribute_options(options, kinds, usual=_USUAL)
    rules = instances(rate_limits, shell.RateLimitRule, parameter="rate_limits")
    if limiter is not None:
        offers(limiter, "hit", parameter="limiter", kind="a Limiter")
    if rules and limiter is None:
        raise ConfigurationError("rate_limits requires a limiter", parameter="limiter")
    if given["limit"] and not rules:
        raise ConfigurationError(
            f"{', '.join(given['limit'])} of RateLimitMiddleware requires rate_limits",
            parameter="rate_limits",
        )
    secure = settings.core.environment != "development"
    if not secure:
        settings = for_development(settings)
    edge = settings.wsgi
    if not edge.allowed_hosts:
        raise ConfigurationError(
            "settings.wsgi.allowed_hosts must list the hosts to serve: set MKS_ALLOWED_HOSTS, or "
            "MKS_ENV=development for those of this machine",
            parameter="allowed_hosts",
        )

    def wrapped(inner: object, name: str, **usual: object) -> object:
        _reject_second(inside, kinds[name].__name__, caller=shell)
        return kinds[name](inner, **{"on_refusal": on_refusal, **usual, **given[name]})

    if given["cache"]:
        app = shell.ResponseCacheMiddleware(app, **_response_cache(app, settings, given["cache"]))
    inside = [*class_names_inside(app)]
    cors, credential_policies = _cors(settings, given["cors"])
    cookies = _cookie_policy(edge.cookie_policy, given["cookie"], secure=secure)
    if cookies:
        _reject_second(inside, "CookiePolicyMiddleware", caller=shell)
        app = shell.CookiePolicyMiddleware(app, **cookies)
    app = wrapped(
        app,
        "csrf",
        allowed_origins=(
            *edge.allowed_origins,
            *checked_origins(() if allowed_origins is None else allowed_origins),
            *credential_policies,
        ),
        exempt_paths=(
            *edge.csrf_exempt_paths,
            *strings(csrf_exempt_paths, parameter="csrf_exempt_paths", of="paths"),
        ),
        secure_cookie=secure,
    )
    app = wrapped(
        app,
        "session",
        store=store if store is not None else session_store(settings),
        idle_timeout=edge.session_idle_timeout,
        absolute_timeout=edge.session_absolute_timeout,
        warn_before=edge.session_warn_before,
        max_sessions=edge.session_max,
        cookie=shell.SessionCookie(secure=secure),
        sign_in_url=sign_in_url,
        public_paths=(*edge.public_paths, *strings(public_paths, parameter="public_paths", of="paths")),
        passive_paths=(*edge.passive_paths, *strings(passive_paths, parameter="passive_paths", of="paths")),
        strip_cookies=strip_cookies,
    )
    if rules:
        app = wrapped(
            app, "limit", limiter=limiter, rules=rules, exempt_paths=_limit_exempt(settings, given["limit"])
        )
    for name, options_of in (
        ("timeout", _timeout),
        ("concurrency", _concurrency),
        ("request", _request_limits),
    ):
        wanted = options_of(settings, given[name])
        if wanted:
            app = wrapped(app, name, **wanted)
    blocking = _client_rules(settings, given["client"])
    if blocking:
        app = wrapped(app, "client", **blocking)
        _observe_events(blocking.get("bans"))
    if given["maintenance"] or edge.maintenance_file is not None:
        file = edge.maintenance_file
        switch = {} if file is None else {"switch": shell.MaintenanceSwitch(file)}
        app = wrapped(app, "maintenance", **switch)
    app = wrapped(app, "health", required=required, optional=optional)
    app = wrapped(
        app,
        "https",
        allowed_hosts=edge.allowed_hosts,
        force_https=edge.force_https,
        https_port=edge.https_port,
        canonical_host=edge.canonical_host,
        api_paths=(*edge.api_paths, *strings(api_paths, parameter="api_paths", of="paths")),
    )
    # Outside the middleware that rejects, so that rejections are logged; inside the headers, which its 500 needs.
    app = wrapped(request_budget(app, seconds=settings.core.store_budget), "record")
    if cors:
        _reject_second(inside, "CORSMiddleware", caller=shell)
        app = shell.CORSMiddleware(app, **{"on_refusal": on_refusal, **cors})
    app = shell.SecurityHeadersMiddleware(app, **_headers(settings, headers, header_rules))
    return shell.TrustedProxyMiddleware(app, trust=_trust(settings))


def _response_cache(
    app: object, settings: HardeningSettings, given: Mapping[str, object]
) -> dict[str, object]:
    """Return the options of ``ResponseCacheMiddleware``, with the cache of the settings by default."""
    if "rules" not in given:
        raise ConfigurationError(
            f"{', '.join(given)} of ResponseCacheMiddleware requires cache_rules", parameter="cache_rules"
        )
    if "ResponseCacheMiddleware" in class_names_inside(app):
        raise ConfigurationError(
            "cache_rules: the application is already wrapped by ResponseCacheMiddleware; give it all the rules",
            parameter="cache_rules",
        )
    return dict(given) if "cache" in given else {"cache": cache_backend(settings), **given}


def _cookie_policy(mode: str, given: Mapping[str, object], *, secure: bool) -> dict[str, object]:
    """Return the options of ``CookiePolicyMiddleware``; none if neither an option nor a setting asks for it."""
    if given or mode == "off":
        return dict(given)
    from mks_hardening._edge.cookies.cookie_policy import CookiePolicy

    return {"policy": CookiePolicy(secure=secure, report_only=mode == "report")}


def _limit_exempt(settings: HardeningSettings, given: dict[str, Any]) -> tuple[str, ...]:
    """Return the paths that the settings and the option exempt from the rate limits; removes the option."""
    option = given.pop("exempt_paths", ())
    return (*settings.wsgi.limit_exempt_paths, *strings(option, parameter="limit_exempt_paths", of="paths"))


def _timeout(settings: HardeningSettings, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``RequestTimeoutMiddleware``; none if neither an option nor a setting asks for it."""
    seconds = settings.wsgi.request_timeout
    return {"seconds": seconds, **given} if given or seconds is not None else {}


def _request_limits(settings: HardeningSettings, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``RequestLimitsMiddleware``; none if neither an option nor a setting asks for it."""
    edge = settings.wsgi
    if edge.max_body is None:
        return dict(given)
    from mks_hardening._edge.request_limits.request_limits import RequestLimitRule, RequestLimits

    wait = edge.body_timeout
    rules = [
        RequestLimitRule(path, RequestLimits(body=size, body_seconds=wait))
        for path, size in edge.max_body_paths
    ]
    return {"limits": RequestLimits(body=edge.max_body, body_seconds=wait), "rules": rules, **given}


def _concurrency(settings: HardeningSettings, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``ConcurrencyMiddleware``; none if neither an option nor a setting asks for it."""
    edge = settings.wsgi
    most = {"client": edge.max_requests_per_client, "requests": edge.max_requests}
    limits = {name: number for name, number in most.items() if number is not None}
    options = dict(given)
    if "limiter" in given or "rules" in given or not limits:
        if options and not {"limiter", "rules"} <= options.keys():
            raise ConfigurationError(
                "the options of ConcurrencyMiddleware require concurrency_limiter and concurrency_rules, or the "
                "settings MKS_MAX_REQUESTS or MKS_MAX_REQUESTS_PER_CLIENT",
                parameter="concurrency_rules",
            )
        return options
    from mks_hardening._edge.concurrency.concurrency_rule import ConcurrencyRule
    from mks_hardening._edge.rate_limits.limit_keys import limit_by_address
    from mks_hardening.security import ConcurrencyLimiter

    keys = {"client": limit_by_address, "requests": None}
    # By client first: a client at its limit takes no slot of all.
    rules = [ConcurrencyRule(name, key=keys[name]) for name in limits]
    return {"limiter": ConcurrencyLimiter(limits), "rules": rules, **options}


def _cors(
    settings: HardeningSettings, given: Mapping[str, object]
) -> tuple[dict[str, object], list[CORSPolicy]]:
    """Return the options of ``CORSMiddleware``, and the policies for pages that may send cookies.

    Unsafe requests of these pages are not cross-site requests for the CSRF check.
    """
    options = dict(given)
    origins = settings.wsgi.cors_origins
    if origins and not given:
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", *settings.wsgi.cors_methods)
        options["policy"] = CORSPolicy(origins, methods=methods, headers="*")
    if not options:
        return {}, []
    rules = options["rules"] = instances(
        cast("Iterable[CORSRule]", options.get("rules", ())), CORSRule, parameter="cors_rules"
    )
    policies = [options.get("policy"), *(rule.policy for rule in rules)]
    return options, [each for each in policies if isinstance(each, CORSPolicy) and each.credentials]


def _client_rules(settings: HardeningSettings, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options of ``ClientRulesMiddleware``; none if neither an option nor a setting asks for it."""
    options: dict[str, object] = {}
    edge = settings.wsgi
    if edge.allow_networks or edge.deny_networks or edge.client_rules_file is not None:
        from mks_hardening._edge.client_rules.client_rules import ClientRules

        options["rules"] = ClientRules(
            allow=edge.allow_networks, deny=edge.deny_networks, file=edge.client_rules_file
        )
    if edge.bans and "bans" not in given:
        options["bans"] = ban_list(settings)
    options |= given
    if options:
        options.setdefault("dry_run", edge.client_rules_dry_run)
    return options


def _observe_events(bans: object) -> None:
    from mks_hardening._edge.client_rules.ban_list import BanList

    if isinstance(bans, BanList) and bans.judges_events:
        observe_until_collected(bans.observe)


_USUAL: Final = {"clock": "session", "pass_paths": "maintenance", "policy": "cors"}
"""Which middleware gets an option without a prefix although several have it."""
_EXCLUSIVE_MIDDLEWARE: Final = {
    "TrustedProxyMiddleware": "two sources of the client's address",
    "SecurityHeadersMiddleware": "two sources of security headers",
    "RequestLoggingMiddleware": "two log records per request",
    "HTTPSRedirectMiddleware": "two checks of scheme and host",
    "SessionTimeoutMiddleware": "two sessions",
    "CSRFMiddleware": "two CSRF checks",
    "hypercorn.middleware.proxy_fix.ProxyFixMiddleware": "a deep copy of the session, which fails",
}
_IGNORED: Final = {
    "werkzeug.middleware.proxy_fix.ProxyFix",
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware",
}
"""Middleware of others that finds only what ``TrustedProxyMiddleware`` has rewritten."""
_ONCE: Final = {
    "ClientRulesMiddleware": "each response would count twice",
    "ConcurrencyMiddleware": "each request would need two slots",
    "CookiePolicyMiddleware": "two policies would change the cookies",
    "CORSMiddleware": "two policies would decide about other origins",
    "RequestLimitsMiddleware": "each request would have two sets of limits",
    "RequestTimeoutMiddleware": "each request would have two deadlines",
}
"""Middleware that options or settings add, and what a second one would do."""
_WAITING: Final = "a WSGI request never waits for a slot, which would occupy a thread of the server"
_SOCKETS: Final = "a WSGI application has no WebSockets"
_ASGI_OPTIONS: Final = {
    "wait": ("concurrency", _WAITING),
    "most_waiting": ("concurrency", _WAITING),
    "count_sockets": ("concurrency", _SOCKETS),
    "recheck_sockets": ("session", _SOCKETS),
}
"""Options of classes of ``mks_hardening.asgi`` alone: the prefix, and why the others do not have it."""


def _reject_asgi_options(options: Iterable[str]) -> None:
    for name in options:
        for option, (prefix, reason) in _ASGI_OPTIONS.items():
            if name in (option, f"{prefix}_{option}"):
                raise ConfigurationError(
                    f"{name} is an option of harden_asgi only: {reason}; omit it", parameter=name
                )


def _reject_wrapped_app(app: object, *, caller: str) -> None:
    for name in dict.fromkeys(class_names_inside(app)):
        if name in _EXCLUSIVE_MIDDLEWARE:
            raise ConfigurationError(
                f"the application is already wrapped by {name}, which would give {_EXCLUSIVE_MIDDLEWARE[name]}: "
                f"pass the application to {caller} without it",
                parameter="app",
            )
        if name in _IGNORED:
            stdlib_logging.getLogger("mks_hardening.wsgi").warning(
                "%s has no effect: MKS_TRUSTED_PROXIES alone decides about client, scheme and host", name
            )


def _reject_second(inside: Iterable[str], name: str, *, caller: ModuleType) -> None:
    """Reject an application that contains a middleware which an option or a setting adds once more."""
    if name in _ONCE and not {name, f"starlette.middleware.cors.{name}"}.isdisjoint(inside):
        harden = f"harden_{caller.__name__.rpartition('.')[2]}"
        raise ConfigurationError(
            f"the application is already wrapped by {name}, and {_ONCE[name]}: pass the application to {harden} "
            "without it, or without the options and settings for it",
            parameter="app",
        )


THIS_MACHINE: Final = (".localhost", "127.0.0.1", "::1")


def for_development(settings: HardeningSettings) -> HardeningSettings:
    """Return the settings relaxed for local development, with a warning; unchanged settings give none."""
    edge = settings.wsgi
    more = tuple(host for host in THIS_MACHINE if host not in edge.allowed_hosts)
    relaxed = replace(
        edge,
        allowed_hosts=(*edge.allowed_hosts, *more),
        canonical_host=None,
        force_https=False,
        hsts=False,
    )
    if relaxed == edge:
        return settings
    stdlib_logging.getLogger("mks_hardening.wsgi").warning(
        "MKS_ENV=development: hosts of this machine are served, plain http is accepted, cookies are not Secure "
        "and Strict-Transport-Security is not sent; use MKS_ENV=production wherever others can reach this"
    )
    return replace(settings, wsgi=relaxed)


def session_store(settings: HardeningSettings) -> SessionStore:
    """Return a session store: in Redis if a URL is set, otherwise in this process."""
    instance(settings, HardeningSettings, parameter="settings")
    from mks_hardening._edge.session.stores.memory_store import MemorySessionStore
    from mks_hardening._edge.session.stores.redis_store import RedisSessionStore

    core = settings.core
    if core.redis_url is None:
        if settings.db.workers > 1:
            warnings.warn(
                f"{settings.db.workers} workers without MKS_REDIS_URL: each keeps its own sessions, so users "
                "appear signed out on every other request",
                SettingsWarning,
                stacklevel=2,
            )
        return MemorySessionStore()
    return RedisSessionStore(
        core.redis_url, store_budget=core.store_budget, allow_plaintext=core.allow_plaintext
    )


def ban_list(settings: HardeningSettings, rules: Iterable[BanRule] | None = None, **options: Any) -> BanList:
    """Return a list of temporary bans: shared through Redis if a URL is set, otherwise of this process.

    ``harden_wsgi`` and ``harden_asgi`` create it with ``MKS_BANS=1``; pass ``bans=`` for other rules.

    Args:
        settings: the Redis URL, and the trusted proxies, which are never banned.
        rules: what leads to a ban; ``DEFAULT_BAN_RULES`` by default.
        options: further parameters of ``BanList``.

    Raises:
        ConfigurationError: ``BanList`` rejects a parameter.
    """
    core = instance(settings, HardeningSettings, parameter="settings").core
    from mks_hardening._edge.client_rules.ban_list import BanList
    from mks_hardening._edge.client_rules.ban_rule import DEFAULT_BAN_RULES

    usual: dict[str, Any] = {
        "store": core.redis_url,
        "trust": _trust(settings),
        "store_budget": core.store_budget,
        "allow_plaintext": core.allow_plaintext,
    }
    return BanList(DEFAULT_BAN_RULES if rules is None else rules, **{**usual, **options})


def cache_backend(settings: HardeningSettings) -> RedisCache | MemoryCache:
    """Return a cache: in Redis if a URL is set, otherwise in this process."""
    instance(settings, HardeningSettings, parameter="settings")
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
    """Return a rate limiter that counts in Redis if a URL is set, otherwise in this process.

    Args:
        settings: the Redis URL, replaced limits of groups (``MKS_RATE_LIMITS``), and groups in dry-run mode
            (``MKS_RATE_LIMITS_DRY_RUN``).
        groups: groups of limits; ``DEFAULT_RATE_LIMITS`` by default.
        options: further parameters of ``RateLimiter``.

    Raises:
        ConfigurationError: the settings name an unknown group, or ``RateLimiter`` rejects a parameter.
    """
    instance(settings, HardeningSettings, parameter="settings")
    from mks_hardening.security import DEFAULT_RATE_LIMITS, RateLimiter

    core, security = settings.core, settings.security
    limits = dict(
        DEFAULT_RATE_LIMITS if groups is None else mapping(groups, parameter="groups", of="names to limits")
    )
    for name, chosen in (
        ("MKS_RATE_LIMITS", dict(security.rate_limits)),
        ("MKS_RATE_LIMITS_DRY_RUN", dict.fromkeys(security.rate_limits_dry_run)),
    ):
        for group in chosen.keys() - limits.keys():
            raise ConfigurationError(
                f"{name} names the group {group!r}, which is unknown; there are {', '.join(sorted(limits))}",
                parameter="settings",
            )
    for group, text in security.rate_limits:
        try:
            limits |= RateLimiter({group: text}).groups
        except ConfigurationError as error:
            raise ConfigurationError(
                f"MKS_RATE_LIMITS, group {group!r}: {error}", parameter="settings"
            ) from None
    options["dry_run"] = {*options.get("dry_run", ()), *security.rate_limits_dry_run}
    options.setdefault("processes", settings.db.workers)
    return RateLimiter(
        limits,
        storage=settings.security.rate_limit_url or core.redis_url or "memory://",
        # The limiter works without Redis, so a request need not wait for it as long as for a session.
        store_budget=min(core.store_budget, LIMITS_BUDGET),
        allow_plaintext=core.allow_plaintext,
        **options,
    )


def setup_logging_with_notifications(settings: HardeningSettings) -> stdlib_logging.Logger:
    """Set up logging from the settings, with alerts by email and Slack, deduplicated by kind of error.

    Returns:
        The application's logger.
    """
    instance(settings, HardeningSettings, parameter="settings")
    from mks_hardening.logging import Rotation, setup_logging

    log, core = settings.logging, settings.core
    rotation = None if log.max_bytes is None else Rotation(max_bytes=log.max_bytes, backups=log.backups)
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
    """Middleware that starts the store budget, inside the request log's context, so that it ends with it."""

    __slots__ = ("_app", "_seconds")

    def __init__(self, app: WSGIApplication, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_request_budget(self._seconds)
        return self._app(environ, start_response)


class _ASGIRequestBudget:
    """``_RequestBudget`` for ASGI: it ends with the head of the response, in the same task.

    A stream and a WebSocket may live for hours, so one budget for all their store calls would run out.
    """

    __slots__ = ("_app", "_seconds")

    def __init__(self, app: ASGIApplication, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_request(scope):
            await self._app(scope, receive, send)
            return

        before = current_budget()

        async def send_and_end_budget(message: Message) -> None:
            if message["type"] in _BUDGET_ENDS:
                restore_budget(before)
            await send(message)

        start_request_budget(self._seconds)
        try:
            await self._app(scope, receive, send_and_end_budget)
        finally:
            restore_budget(before)


_BUDGET_ENDS: Final = frozenset({"http.response.start", "websocket.accept"})


def _trust(settings: HardeningSettings) -> ProxyTrust:
    from mks_hardening._core.origin.proxy_trust import ProxyTrust

    edge = settings.wsgi
    return ProxyTrust(
        edge.trusted_proxies,
        family=edge.proxy_family,
        hops=edge.proxy_hops,
        keep_headers=edge.proxy_keep_headers,
        ignore_headers=edge.proxy_ignore_headers,
    )


def _headers(
    settings: HardeningSettings, policy: HeaderPolicy | None, rules: Iterable[HeaderRule]
) -> dict[str, Any]:
    """Return the options of ``SecurityHeadersMiddleware``."""
    from mks_hardening._edge.headers.header_policy import HeaderPolicy
    from mks_hardening._edge.headers.header_rule import HeaderRule, headers_of_file, log_loose_sources
    from mks_hardening._edge.headers.hsts import HSTS

    edge = settings.wsgi
    if policy is None:
        preset = getattr(HeaderPolicy, edge.header_preset)
        hsts = HSTS(edge.hsts_max_age, include_subdomains=edge.hsts_include_subdomains) if edge.hsts else None
        policy = preset(hsts=hsts)
    policy = instance(policy, HeaderPolicy, parameter="headers")
    rules = instances(rules, HeaderRule, parameter="header_rules")
    if edge.headers_file is not None:
        policy, further = headers_of_file(edge.headers_file, policy)
        rules = [*rules, *further]
    log_loose_sources(policy, rules)
    return {"policy": policy, "rules": rules}


def _alert_handlers(settings: HardeningSettings) -> list[stdlib_logging.Handler]:
    from mks_hardening import notify

    alerts, core = settings.notify, settings.core
    policy = notify.AlertPolicy(dedup_window=alerts.alert_window, shared_store=_shared_store(settings))
    common: dict[str, Any] = {
        "level": alerts.alert_level,
        "policy": policy,
        "lang": alerts.alert_language,
        "environment": core.environment,
        "allow_plaintext": core.allow_plaintext,
        # After a change of recipients or webhook, the new destination receives the spooled alerts.
        "spool_name": core.app_name,
    }
    handlers: list[stdlib_logging.Handler] = []
    if alerts.smtp_host is not None and alerts.alert_from is not None:
        handlers.append(
            notify.EmailNotificationHandler(
                alerts.smtp_host,
                smtp_port=alerts.smtp_port,
                from_addr=alerts.alert_from,
                to_addrs=alerts.alert_to,
                username=alerts.smtp_user,
                password=alerts.smtp_password,
                security=alerts.smtp_security,
                ca_file=alerts.smtp_ca_file,
                subject_prefix=f"[{core.app_name}]",
                spool=_spool(settings, "email"),
                **common,
            )
        )
    if alerts.slack_webhook_url is not None:
        handlers.append(
            notify.SlackNotificationHandler(
                alerts.slack_webhook_url,
                channel=alerts.slack_channel,
                spool=_spool(settings, "slack"),
                **common,
            )
        )
    for handler in handlers:
        handler.addFilter(_is_news)
    return handlers


def _is_news(record: stdlib_logging.LogRecord) -> bool:
    """Whether a record is news to operators: a 5xx that the application itself returned is already reported."""
    return record.name != "mks_hardening.request" or getattr(record, "outcome", "") == "error"


def _shared_store(settings: HardeningSettings) -> RedisClient | None:
    from mks_hardening._core.backend.redis_client import RedisClient

    core = settings.core
    if core.redis_url is None:
        return None
    return RedisClient(core.redis_url, name="alerts", allow_plaintext=core.allow_plaintext)


def _spool(settings: HardeningSettings, channel: str) -> str | None:
    folder = settings.notify.alert_spool
    return None if folder is None else f"{folder}/{channel}"

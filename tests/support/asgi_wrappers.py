"""Every class of ``mks_hardening.asgi`` around an application, alone and all together."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

from mks_hardening.asgi import (
    BanList,
    BanRule,
    CacheRule,
    ClientRulesMiddleware,
    ConcurrencyMiddleware,
    ConcurrencyRule,
    CookiePolicy,
    CookiePolicyMiddleware,
    CORSMiddleware,
    CORSPolicy,
    CSRFMiddleware,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    MaintenanceMiddleware,
    MaintenanceSwitch,
    MemorySessionStore,
    ProxyTrust,
    RateLimitMiddleware,
    RateLimitRule,
    RequestLimitsMiddleware,
    RequestLoggingMiddleware,
    RequestTimeoutMiddleware,
    RequestTimeoutRule,
    ResponseCacheMiddleware,
    SecurityHeadersMiddleware,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)
from mks_hardening.cache import MemoryCache
from mks_hardening.security import ConcurrencyLimiter, RateLimiter

HOST = "www.example.com"
TRUST = ProxyTrust(["10.0.0.0/8", "192.0.2.7"])

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "TrustedProxyMiddleware": lambda app: TrustedProxyMiddleware(app, trust=TRUST),
    "CORSMiddleware": lambda app: CORSMiddleware(app, policy=CORSPolicy([f"https://{HOST}"])),
    "MaintenanceMiddleware": lambda app: MaintenanceMiddleware(
        app, switch=MaintenanceSwitch(Path(__file__).with_name("no-maintenance"))
    ),
    "ClientRulesMiddleware": lambda app: ClientRulesMiddleware(
        app, bans=BanList([BanRule("sweep", strikes=1000, when={404})])
    ),
    "RequestLoggingMiddleware": lambda app: RequestLoggingMiddleware(app, trust=TRUST),
    "SecurityHeadersMiddleware": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.strict()),
    "HealthMiddleware": lambda app: HealthMiddleware(app, required={}),
    "HTTPSRedirectMiddleware": lambda app: HTTPSRedirectMiddleware(app, allowed_hosts=[HOST]),
    "RequestLimitsMiddleware": lambda app: RequestLimitsMiddleware(app),  # noqa: PLW0108 - its signature
    "ConcurrencyMiddleware": lambda app: ConcurrencyMiddleware(
        app, limiter=ConcurrencyLimiter({"all": 1000}), rules=[ConcurrencyRule("all")], count_sockets=True
    ),
    "RequestTimeoutMiddleware": lambda app: RequestTimeoutMiddleware(
        app, rules=[RequestTimeoutRule("/", 60, whole_response=True)]
    ),
    "RateLimitMiddleware": lambda app: RateLimitMiddleware(
        app, limiter=RateLimiter({"all": "1000 per minute"}), rules=[RateLimitRule("all")]
    ),
    "SessionTimeoutMiddleware": lambda app: SessionTimeoutMiddleware(
        app, store=MemorySessionStore(), recheck_sockets=60
    ),
    "CSRFMiddleware": lambda app: CSRFMiddleware(app),  # noqa: PLW0108 - its signature
    "CookiePolicyMiddleware": lambda app: CookiePolicyMiddleware(app, policy=CookiePolicy()),
    "ResponseCacheMiddleware": lambda app: ResponseCacheMiddleware(
        app, cache=MemoryCache(), rules=[CacheRule("/*", ttl=60)]
    ),
}
"""From the outside in."""


def all_of_them(app: Any, *, but: str = "") -> Any:
    """All classes, in the order of ``WRAPPERS``, or all but one."""
    chosen = [wrap for name, wrap in WRAPPERS.items() if name != but]
    return reduce(lambda inner, wrap: wrap(inner), reversed(chosen), app)


STACKS = {**WRAPPERS, "all": all_of_them}

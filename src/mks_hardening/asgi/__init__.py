"""ASGI middleware: origin, HTTPS, headers, CSRF, request log, sessions, limits, response cache and health.

The classes have the names and parameters of ``mks_hardening.wsgi`` and use the same rules. Each takes the ASGI
application as its first argument and works on its own, with every framework. Policies, rules, stores and handles
are the same objects as in ``mks_hardening.wsgi``.
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_SHARED = {
    "mks_hardening._core.origin.origin_of_request": ["request_origin"],
    "mks_hardening._core.origin.proxy_trust": ["ProxyTrust", "RequestOrigin"],
    "mks_hardening._core.web.environ_keys": [
        "CSP_NONCE_KEY",
        "CSRF_TOKEN_KEY",
        "DEADLINE_KEY",
        "ORIGIN_KEY",
        "REFUSAL_KEY",
        "REQUEST_ID_KEY",
        "ROUTE_KEY",
        "SESSION_KEY",
    ],
    "mks_hardening._edge.client_rules.ban_list": ["Ban", "BanList"],
    "mks_hardening._edge.client_rules.ban_rule": ["DEFAULT_BAN_RULES", "BanRule"],
    "mks_hardening._edge.client_rules.client_rules": ["ClientRules"],
    "mks_hardening._edge.concurrency.concurrency_rule": ["ConcurrencyRule"],
    "mks_hardening._edge.cookies.cookie_policy": ["CookiePolicy"],
    "mks_hardening._edge.cors.cors_policy": ["CORSPolicy", "CORSRule"],
    "mks_hardening._edge.headers.csp": ["ContentSecurityPolicy"],
    "mks_hardening._edge.headers.header_policy": ["HeaderPolicy"],
    "mks_hardening._edge.headers.header_rule": ["HeaderRule"],
    "mks_hardening._edge.headers.hsts": ["HSTS"],
    "mks_hardening._edge.maintenance.maintenance_switch": ["MaintenanceSwitch"],
    "mks_hardening._edge.rate_limits.group_choice": ["GroupChoice"],
    "mks_hardening._core.response_costs": ["LimitedResponse"],
    "mks_hardening._core.request_hits": ["set_request_cost"],
    "mks_hardening._edge.rate_limits.limit_keys": [
        "limit_by_address",
        "limit_by_all",
        "limit_by_header",
        "limit_by_user",
    ],
    "mks_hardening._edge.rate_limits.rate_limit_rule": ["RateLimitRule"],
    "mks_hardening._edge.refusals": ["CustomResponse", "Refusal"],
    "mks_hardening._edge.request_limits.request_limits": ["RequestLimitRule", "RequestLimits"],
    "mks_hardening._edge.request_timeout.deadline_of_request": ["RequestDeadline", "request_deadline"],
    "mks_hardening._edge.request_timeout.request_timeout_rule": ["RequestTimeoutRule"],
    "mks_hardening._edge.response_cache.cache_rule": ["CacheRule"],
    "mks_hardening._edge.session.session_cookie": ["SessionCookie"],
    "mks_hardening._edge.session.session_handle": ["SessionHandle"],
    "mks_hardening._edge.session.session_manager": ["SessionManager"],
    "mks_hardening._edge.session.stores.memory_store": ["MemorySessionStore"],
    "mks_hardening._edge.session.stores.redis_store": ["RedisSessionStore"],
}
_HOME = {
    **_SHARED,
    "mks_hardening.asgi.client_rules": ["ClientRulesMiddleware"],
    "mks_hardening.asgi.concurrency": ["ConcurrencyMiddleware"],
    "mks_hardening.asgi.cookies": ["CookiePolicyMiddleware"],
    "mks_hardening.asgi.cors": ["CORSMiddleware"],
    "mks_hardening.asgi.csrf": ["CSRFMiddleware"],
    "mks_hardening.asgi.health": ["HealthMiddleware"],
    "mks_hardening.asgi.https_redirect": ["HTTPSRedirectMiddleware"],
    "mks_hardening.asgi.maintenance": ["MaintenanceMiddleware"],
    "mks_hardening.asgi.rate_limit": ["RateLimitMiddleware"],
    "mks_hardening.asgi.request_limits": ["RequestLimitsMiddleware"],
    "mks_hardening.asgi.request_log": ["RequestLoggingMiddleware"],
    "mks_hardening.asgi.request_timeout": ["RequestTimeoutMiddleware"],
    "mks_hardening.asgi.response_cache": ["ResponseCacheMiddleware"],
    "mks_hardening.asgi.security_headers": ["SecurityHeadersMiddleware"],
    "mks_hardening.asgi.session": ["SessionTimeoutMiddleware"],
    "mks_hardening.asgi.trusted_proxy": ["TrustedProxyMiddleware"],
}

__getattr__, __dir__, __all__ = facade(
    __name__,
    _HOME,
    documented_in={name: "mks_hardening.wsgi" for names in _SHARED.values() for name in names},
)

"""WSGI middleware: origin, HTTPS, headers, CSRF, request log, sessions, limits, response cache and health.

Each class takes the WSGI application as its first argument and works on its own. When several are combined, they
share one decision about the origin of a request.
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening._core.origin.origin_of_request": ["request_origin"],
    "mks_hardening._core.origin.proxy_trust": ["ProxyTrust", "RequestOrigin"],
    "mks_hardening.wsgi.client_rules": ["ClientRulesMiddleware"],
    "mks_hardening.wsgi.concurrency": ["ConcurrencyMiddleware"],
    "mks_hardening.wsgi.cookies": ["CookiePolicyMiddleware"],
    "mks_hardening.wsgi.cors": ["CORSMiddleware"],
    "mks_hardening.wsgi.csrf.csrf_middleware": ["CSRFMiddleware"],
    "mks_hardening._edge.client_rules.ban_list": ["Ban", "BanList"],
    "mks_hardening._edge.client_rules.ban_rule": ["DEFAULT_BAN_RULES", "BanRule"],
    "mks_hardening._edge.client_rules.client_rules": ["ClientRules"],
    "mks_hardening._edge.concurrency.concurrency_rule": ["ConcurrencyRule"],
    "mks_hardening._edge.cookies.cookie_policy": ["CookiePolicy"],
    "mks_hardening._edge.cors.cors_policy": ["CORSPolicy", "CORSRule"],
    "mks_hardening._edge.headers.csp": ["ContentSecurityPolicy"],
    "mks_hardening._edge.headers.hsts": ["HSTS"],
    "mks_hardening._edge.headers.header_policy": ["HeaderPolicy"],
    "mks_hardening._edge.headers.header_rule": ["HeaderRule"],
    "mks_hardening.wsgi.headers.security_headers": ["SecurityHeadersMiddleware"],
    "mks_hardening.wsgi.health": ["HealthMiddleware"],
    "mks_hardening.wsgi.environ_keys": [
        "CSP_NONCE_KEY",
        "CSRF_TOKEN_KEY",
        "DEADLINE_KEY",
        "ORIGIN_KEY",
        "REFUSAL_KEY",
        "REQUEST_ID_KEY",
        "ROUTE_KEY",
        "SESSION_KEY",
    ],
    "mks_hardening.wsgi.origin.https_redirect": ["HTTPSRedirectMiddleware"],
    "mks_hardening.wsgi.origin.trusted_proxy": ["TrustedProxyMiddleware"],
    "mks_hardening._edge.rate_limits.rate_limit_rule": ["RateLimitRule"],
    "mks_hardening.wsgi.maintenance": ["MaintenanceMiddleware"],
    "mks_hardening.wsgi.rate_limit": ["RateLimitMiddleware"],
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
    "mks_hardening._edge.refusals": ["CustomResponse", "Refusal"],
    "mks_hardening._edge.request_limits.request_limits": ["RequestLimitRule", "RequestLimits"],
    "mks_hardening._edge.request_timeout.deadline_of_request": ["RequestDeadline", "request_deadline"],
    "mks_hardening._edge.request_timeout.request_timeout_rule": ["RequestTimeoutRule"],
    "mks_hardening._edge.response_cache.cache_rule": ["CacheRule"],
    "mks_hardening.wsgi.request_limits": ["RequestLimitsMiddleware"],
    "mks_hardening.wsgi.request_timeout": ["RequestTimeoutMiddleware"],
    "mks_hardening.wsgi.response_cache.response_cache_middleware": ["ResponseCacheMiddleware"],
    "mks_hardening.wsgi.request_log.request_log_middleware": ["RequestLoggingMiddleware"],
    "mks_hardening._edge.session.session_cookie": ["SessionCookie"],
    "mks_hardening._edge.session.session_handle": ["SessionHandle"],
    "mks_hardening._edge.session.session_manager": ["SessionManager"],
    "mks_hardening.wsgi.session.session_middleware": ["SessionTimeoutMiddleware"],
    "mks_hardening._edge.session.stores.memory_store": ["MemorySessionStore"],
    "mks_hardening._edge.session.stores.redis_store": ["RedisSessionStore"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)

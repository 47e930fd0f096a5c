"""Wrappers for any WSGI application: proxy trust, HTTPS, headers, CSRF, request record, sessions, limits, health.

Each takes the application first and works alone; together they share one decision about the origin of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening._core.origin import ProxyTrust, RequestOrigin, request_origin
    from mks_hardening.wsgi.csp import ContentSecurityPolicy
    from mks_hardening.wsgi.csrf import CSRFMiddleware
    from mks_hardening.wsgi.header_policy import HSTS, HeaderPolicy
    from mks_hardening.wsgi.health import HealthMiddleware
    from mks_hardening.wsgi.https import HTTPSRedirectMiddleware
    from mks_hardening.wsgi.proxy import TrustedProxyMiddleware
    from mks_hardening.wsgi.rate_limit import RateLimitMiddleware, RateLimitRule
    from mks_hardening.wsgi.request_log import RequestLoggingMiddleware
    from mks_hardening.wsgi.security_headers import SecurityHeadersMiddleware
    from mks_hardening.wsgi.session_store import MemorySessionStore, RedisSessionStore, SessionManager
    from mks_hardening.wsgi.session_timeout import SessionCookie, SessionHandle, SessionTimeoutMiddleware

__all__ = [
    "HSTS",
    "CSRFMiddleware",
    "ContentSecurityPolicy",
    "HTTPSRedirectMiddleware",
    "HeaderPolicy",
    "HealthMiddleware",
    "MemorySessionStore",
    "ProxyTrust",
    "RateLimitMiddleware",
    "RateLimitRule",
    "RedisSessionStore",
    "RequestLoggingMiddleware",
    "RequestOrigin",
    "SecurityHeadersMiddleware",
    "SessionCookie",
    "SessionHandle",
    "SessionManager",
    "SessionTimeoutMiddleware",
    "TrustedProxyMiddleware",
    "request_origin",
]

_HOME = {
    "CSRFMiddleware": "mks_hardening.wsgi.csrf",
    "ContentSecurityPolicy": "mks_hardening.wsgi.csp",
    "HSTS": "mks_hardening.wsgi.header_policy",
    "HTTPSRedirectMiddleware": "mks_hardening.wsgi.https",
    "HeaderPolicy": "mks_hardening.wsgi.header_policy",
    "HealthMiddleware": "mks_hardening.wsgi.health",
    "MemorySessionStore": "mks_hardening.wsgi.session_store",
    "ProxyTrust": "mks_hardening._core.origin",
    "RateLimitMiddleware": "mks_hardening.wsgi.rate_limit",
    "RateLimitRule": "mks_hardening.wsgi.rate_limit",
    "RedisSessionStore": "mks_hardening.wsgi.session_store",
    "RequestLoggingMiddleware": "mks_hardening.wsgi.request_log",
    "RequestOrigin": "mks_hardening._core.origin",
    "SecurityHeadersMiddleware": "mks_hardening.wsgi.security_headers",
    "SessionCookie": "mks_hardening.wsgi.session_timeout",
    "SessionHandle": "mks_hardening.wsgi.session_timeout",
    "SessionManager": "mks_hardening.wsgi.session_store",
    "SessionTimeoutMiddleware": "mks_hardening.wsgi.session_timeout",
    "TrustedProxyMiddleware": "mks_hardening.wsgi.proxy",
    "request_origin": "mks_hardening._core.origin",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)

"""Never run: what type checkers see of the edge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, assert_type

from mks_hardening.testing import WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    HSTS,
    SESSION_KEY,
    ContentSecurityPolicy,
    CSRFMiddleware,
    CustomResponse,
    GroupChoice,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    RateLimitRule,
    Refusal,
    RequestOrigin,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
    request_origin,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An application of the standard library's types alone."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [request_origin(environ).client_ip.encode()]


# --- each wrapper takes an application and is one

trust = ProxyTrust(["10.0.0.0/8"], family="forwarded", hops=None)
wrapped: WSGIApplication = TrustedProxyMiddleware(plain, trust=trust)
wrapped = HTTPSRedirectMiddleware(wrapped, allowed_hosts=["a.test"], canonical_host="a.test")
wrapped = CSRFMiddleware(wrapped, allowed_origins={"https://a.test"})
wrapped = HealthMiddleware(
    wrapped, required={"a": bool}, optional=[("b", list)], timeout=timedelta(seconds=1)
)
wrapped = SecurityHeadersMiddleware(
    wrapped, policy=HeaderPolicy.web(hsts=HSTS(timedelta(days=365)), csp=None)
)
assert_type(call_wsgi(plain, wrap=lambda app: TrustedProxyMiddleware(app, trust=trust)), WSGIResponse)

# --- results

assert_type(trust.resolve({}), RequestOrigin)
assert_type(trust.resolve({}).port, int)
assert_type(HeaderPolicy.api(), HeaderPolicy)
RateLimitRule("sign-in", methods=("POST",), path="/login", key=lambda environ: environ.get("REMOTE_USER"))


def plan(environ: dict[str, object]) -> str:
    """The group of a user."""
    return str(environ["plan"])


RateLimitRule(
    GroupChoice(plan, groups=["team"], fallback="free"),
    exempt=lambda environ: "monitoring" in environ,
    final_cost=lambda environ, response: response.status == 401,
)
RateLimitRule("rows", cost=5, final_cost=lambda environ, response: response.handler_cost or 0)
ContentSecurityPolicy(
    {"default-src": ["'self'"], "img-src": "'self' data:", "upgrade-insecure-requests": True}
)


def worded(environ: dict[str, object], refusal: Refusal) -> CustomResponse | None:
    """The application's own words."""
    assert_type(refusal.status, int)
    return CustomResponse(body=refusal.detail, headers=[("Content-Language", "en")]) if environ else None


wrapped = CSRFMiddleware(plain, on_refusal=worded)
wrapped = HTTPSRedirectMiddleware(plain, allowed_hosts=["a.test"], on_refusal=worded)
wrapped = HealthMiddleware(plain, required={}, on_refusal=worded)
assert_type(SESSION_KEY, Literal["mks_hardening.session"])

# --- what must not pass

ProxyTrust(family="both")  # type: ignore[arg-type]
ProxyTrust(["10.0.0.0/8"], "forwarded")  # type: ignore[call-arg]
TrustedProxyMiddleware(plain)  # type: ignore[call-arg]
HeaderPolicy.web(hsts=31536000)  # type: ignore[arg-type]
HeaderPolicy.web(hst=None)  # type: ignore[call-arg]
RateLimitRule("sign-in", key=lambda environ: 1)  # type: ignore[arg-type, return-value]
RateLimitRule("g", final_cost=lambda environ, response: "1")  # type: ignore[arg-type, return-value]

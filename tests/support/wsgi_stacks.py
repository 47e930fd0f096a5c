"""Our wrappers, built as the tables of the WSGI tests describe them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mks_hardening.wsgi import (
    HSTS,
    ContentSecurityPolicy,
    CSRFMiddleware,
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
)

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

CORPUS = Path(__file__).parents[1] / "corpus"


def corpus_runner() -> Any:
    """Return the runner for a table."""
    if "wsgi_cases" not in sys.modules:
        spec = importlib.util.spec_from_file_location("wsgi_cases", CORPUS / "wsgi_cases.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["wsgi_cases"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["wsgi_cases"])
    return sys.modules["wsgi_cases"]


def make_redirect_stack(app: WSGIApplication, config: dict[str, Any]) -> WSGIApplication:
    """Trusted proxies outside, redirect inside."""
    options = dict(config)
    trust = _trust(options)
    return TrustedProxyMiddleware(HTTPSRedirectMiddleware(app, **options), trust=trust)


def make_one_wrapper_stack(app: WSGIApplication, config: dict[str, Any]) -> WSGIApplication:
    """The redirect alone, with its own trusted proxies."""
    options = dict(config)
    return HTTPSRedirectMiddleware(app, trust=_trust(options), **options)


def make_headers_stack(app: WSGIApplication, config: dict[str, Any]) -> WSGIApplication:
    """A policy from a preset and its overrides."""
    options = dict(config)
    preset = options.pop("preset", None)
    if options.get("hsts") is not None:
        options["hsts"] = HSTS(**options["hsts"])
    if options.get("csp") is not None:
        csp = dict(options["csp"])
        options["csp"] = ContentSecurityPolicy(csp.pop("directives"), **csp)
    build = HeaderPolicy if preset is None else getattr(HeaderPolicy, preset)
    return SecurityHeadersMiddleware(app, policy=build(**options))


def _trust(options: dict[str, Any]) -> ProxyTrust:
    names = ("family", "hops")
    given = {name: options.pop(name) for name in names if name in options}
    return ProxyTrust(options.pop("trusted_proxies", ()), **given)


def make_csrf_stack(app: WSGIApplication, config: dict[str, Any]) -> WSGIApplication:
    """The CSRF check alone."""
    return CSRFMiddleware(app, **config)

"""Middleware for cross-origin resource sharing (CORS)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.cors.cors_policy import CORSPolicy, CORSRule, CORSRules, is_preflight
from mks_hardening._edge.cors.cors_response import (
    CORSRequest,
    add_cors_fields,
    preflight_response,
    refuse_preflight,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["CORSMiddleware"]


class CORSMiddleware:
    """Middleware that tells browsers which pages of other origins may read the responses.

    It answers preflights itself, before limits and session, so that they are neither counted nor redirected: 204
    for an allowed origin, 403 for another one. Every other response gets the fields of the policy, refusals and
    errors included; fields of CORS that the application has set are replaced. Responses to a list of origins always
    carry ``Vary: Origin``, so that caches keep them apart.

    Use it outside all other middleware except ``TrustedProxyMiddleware`` and ``SecurityHeadersMiddleware``: scripts
    of other origins cannot read a response that is made outside of it.

    Args:
        app: the WSGI application.
        policy: the policy for all paths that no rule covers; ``None`` for none.
        rules: policies for certain paths; the first that matches decides.
        on_refusal: takes the environ and the ``Refusal`` (``cors``, ``origin``) and may return a
            ``CustomResponse``.

    Raises:
        ConfigurationError: neither a policy nor rules, or something that is neither.

    Source: Fetch standard, 3.3; ASVS 5.0 V3.4.2; CWE-942.
    """

    __slots__ = ("_app", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        policy: CORSPolicy | None = None,
        rules: Iterable[CORSRule] = (),
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._rules = CORSRules(policy, rules)
        self._refuser = Refuser("cors", on_refusal)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        get = environ.get
        policy = self._rules.policy(get("PATH_INFO", ""))
        if policy is None:
            return self._app(environ, start_response)
        origin = get("HTTP_ORIGIN")
        if is_preflight(environ["REQUEST_METHOD"], origin, get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")):
            asked = CORSRequest(
                origin,
                get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"),
                get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK"),
            )
            response = preflight_response(policy, asked) or refuse_preflight(
                self._refuser,
                environ,
                origin=origin or "",
                path=get("PATH_INFO", ""),
                accept=get("HTTP_ACCEPT", ""),
                client_ip=request_origin(environ).client_ip,
            )
            return send_response(environ, start_response, response)

        def step(status: str, headers: Headers) -> str:
            add_cors_fields(policy, origin, headers)
            return status

        return self._app(environ, with_step(start_response, step))

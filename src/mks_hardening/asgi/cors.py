"""Middleware for cross-origin resource sharing (CORS)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening._core.web.asgi_scope import header, method_of, path_below_mount
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening._edge.cors.cors_policy import CORSPolicy, CORSRule, CORSRules, is_preflight
from mks_hardening._edge.cors.cors_response import (
    CORSRequest,
    add_cors_fields,
    preflight_response,
    refuse_preflight,
)
from mks_hardening._edge.refusal_response import INTERNAL_ERROR, FixedResponse, Refuser
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import decoded, encoded, raw_headers, send_response, with_headers

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["CORSMiddleware"]

_HEAD: Final = "http.response.start"


class CORSMiddleware:
    """Middleware that tells browsers which pages of other origins may read the responses.

    It answers preflights itself, before limits and session, so that they are neither counted nor redirected: 204
    for an allowed origin, 403 for another one. Every other response gets the fields of the policy, refusals and
    errors included; fields of CORS that the application has set are replaced. Responses to a list of origins always
    carry ``Vary: Origin``, so that caches keep them apart.

    Use it outside all other middleware except ``TrustedProxyMiddleware`` and ``SecurityHeadersMiddleware``: scripts
    of other origins cannot read a response that is made outside of it.

    Args:
        app: the ASGI application.
        policy: the policy for all paths that no rule covers; ``None`` for none.
        rules: policies for certain paths; the first that matches decides.
        on_refusal: takes the scope and the ``Refusal`` (``cors``, ``origin``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: neither a policy nor rules, or something that is neither.

    Source: Fetch standard, 3.3; ASVS 5.0 V3.4.2; CWE-942.
    """

    __slots__ = ("_app", "_refuser", "_rules")

    def __init__(
        self,
        app: ASGIApplication,
        *,
        policy: CORSPolicy | None = None,
        rules: Iterable[CORSRule] = (),
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = asgi_application(app)
        self._rules = CORSRules(policy, rules)
        self._refuser = Refuser("cors", on_refusal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3); WebSockets are not covered by CORS."""
        policy = self._rules.policy(path_below_mount(scope)) if scope["type"] == "http" else None
        if policy is None:
            await self._app(scope, receive, send)
            return
        origin = header(scope, b"origin")
        if origin is not None and method_of(scope) == "OPTIONS":
            response = self._preflight(scope, policy, origin)
            if response is not None:
                await send_response(scope, send, response)
                return
        started = False

        async def send_with_fields(message: Message) -> None:
            nonlocal started
            if message["type"] == _HEAD:
                started = True
                headers = decoded(raw_headers(message))
                add_cors_fields(policy, origin, headers)
                message = with_headers(message, encoded(headers))
            await send(message)

        try:
            await self._app(scope, receive, send_with_fields)
        except Exception:
            # The server's own response to the exception would lack the fields.
            if not started:
                await send_response(scope, send_with_fields, INTERNAL_ERROR)
            raise

    def _preflight(self, scope: Scope, policy: CORSPolicy, origin: str) -> FixedResponse | None:
        if not is_preflight("OPTIONS", origin, header(scope, b"access-control-request-method")):
            return None
        asked = CORSRequest(
            origin,
            header(scope, b"access-control-request-headers"),
            header(scope, b"access-control-request-private-network"),
        )
        return preflight_response(policy, asked) or refuse_preflight(
            self._refuser,
            private_scope(scope),
            origin=origin,
            path=path_below_mount(scope),
            accept=header(scope, b"accept") or "",
            client_ip=request_origin(scope).client_ip,
        )

"""Middleware that limits how many requests are handled at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mks_hardening._core.origin.proxy_trust import ProxyTrust, origin_reader
from mks_hardening._core.web.environ_keys import ORIGIN_KEY
from mks_hardening._core.web.wsgi_stack import wsgi_application
from mks_hardening._edge.concurrency.concurrency_rule import (
    NO_SLOT,
    ConcurrencyRule,
    HeldSlots,
    SlotLimiter,
    checked_slot_rules,
    retry_after,
)
from mks_hardening._edge.refusal_response import Refuser
from mks_hardening.wsgi._closing_body import with_close
from mks_hardening.wsgi._send_response import send_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._edge.refusals import OnRefusal

__all__ = ["ConcurrencyMiddleware"]


class ConcurrencyMiddleware:
    """Middleware that refuses requests with 503 while too many others are being handled.

    Each request holds a slot of every rule that applies until its response has been sent. Under overload, the
    requests that are accepted stay fast, and the others are told at once to try again (``Retry-After``). A request
    never waits, since it would occupy a thread of the server.

    Args:
        app: the WSGI application.
        limiter: a ``mks_hardening.security.ConcurrencyLimiter``, in memory for a limit of each process, or in Redis
            for one of all processes.
        rules: the rules, in order: those by client first, so that a refused request takes no slot of all.
        trust: proxies that may report the client address; not needed inside ``TrustedProxyMiddleware``.
        on_refusal: takes the environ and the ``Refusal`` (``concurrency``) and may return a ``CustomResponse``.

    Raises:
        ConfigurationError: no rule is given, an item is not a rule, or the limiter does not have a limit.

    Source: RFC 9110 (15.6.4); ASVS 5.0 V15.1.3; CWE-770.
    """

    __slots__ = ("_app", "_limiter", "_origin", "_refuser", "_rules")

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limiter: SlotLimiter,
        rules: Iterable[ConcurrencyRule],
        trust: ProxyTrust | None = None,
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self._app = wsgi_application(app)
        self._limiter = limiter
        self._rules = checked_slot_rules(rules, limiter)
        self._origin = origin_reader(trust)
        self._refuser = Refuser("concurrency", on_refusal)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        if ORIGIN_KEY not in environ:
            environ[ORIGIN_KEY] = self._origin(environ)
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        held = HeldSlots(environ, self._limiter)
        try:
            for rule in self._rules:
                key = rule.key_of(environ, method, path)
                if key is None or held.has((rule.limit, key)):
                    continue
                slot = self._limiter.acquire(rule.limit, key)
                if not slot:
                    held.release()
                    response = self._refuser.refuse(
                        environ,
                        NO_SLOT,
                        accept=environ.get("HTTP_ACCEPT", ""),
                        name=rule.limit,
                        seen=f"no slot of {rule.limit}",
                        client_ip=environ[ORIGIN_KEY].client_ip,
                        headers=[retry_after(slot)],
                    )
                    return send_response(environ, start_response, response)
                held.add((rule.limit, key), slot)
            return with_close(self._app(environ, start_response), environ, held.release)
        except BaseException:
            held.release()
            raise

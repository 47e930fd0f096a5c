"""ASGI applications of every framework: hardening in one line.

.. code-block:: python

    Hardening(app, HardeningSettings.from_env())  # FastAPI, Starlette, Litestar, Quart

    application = Hardening(get_asgi_application(), HardeningSettings.from_env())  # Django and others
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mks_hardening import compose
from mks_hardening._core.checks import instance, mapping, offers
from mks_hardening._core.closing import Closing
from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.web.asgi_scope import is_request
from mks_hardening._core.web.private_scope import private_scope
from mks_hardening.asgi import SessionManager
from mks_hardening.asgi._application import asgi_application
from mks_hardening.asgi._messages import HEADS, decoded, encoded, raw_headers, with_headers
from mks_hardening.asgi._response_costs import ResponseEnd
from mks_hardening.contrib._limited_views import Groups, limit_fields, limiter_of, share_decisions
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mks_hardening._core.web.asgi_types import ASGIApplication, Message, Receive, Scope, Send
    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import SignIn

__all__ = ["Hardening"]

Application: TypeAlias = Any
"""An application of one of the frameworks, none of which is imported here."""

_KEY: Final = "mks_hardening.hardening"


class Hardening(Closing):
    """Wraps an ASGI application with ``compose.harden_asgi``, in the way of its framework.

    FastAPI, Starlette, Litestar and Quart applications are hardened in place: continue to pass ``app`` to the
    server. Around any other application, such as Django's, this object is the application to pass to the server.

    In FastAPI and Starlette, an outage or a limit in a view becomes a problem document (503 or 429), unless the
    application has its own exception handler. FastAPI's OpenAPI document contains the responses of the
    dependencies in ``mks_hardening.contrib.fastapi_app``.

    Args:
        app: the application.
        settings: the settings; read from the environment by default.
        store: session store; created from the settings by default.
        limiter: limiter for the rate limits of views and ``rate_limits``; created from the settings by default.
        groups: limits by group for the default limiter, in addition to ``DEFAULT_RATE_LIMITS``.
        sign_in: the application's ``SignIn``, or a function that creates it from this object, of which it needs
            ``sessions.end_user``; for ``require_recent_factor``.
        options: further options of ``compose.harden_asgi``.

    Attributes:
        settings: the settings.
        store: the session store.
        sessions: lists and ends sessions.
        limiter: the limiter.
        sign_in: the application's ``SignIn``, or ``None``.

    Raises:
        ConfigurationError: the application is already hardened, has served a request, or is a WSGI application; or
            ``harden_asgi`` rejects an option.
    """

    def __init__(
        self,
        app: Application,
        settings: HardeningSettings | None = None,
        *,
        store: SessionStore | None = None,
        limiter: Limiter | None = None,
        groups: Groups | None = None,
        sign_in: SignIn | Callable[[Hardening], SignIn] | None = None,
        **options: Any,
    ) -> None:
        asgi_application(app)
        chosen = HardeningSettings.from_env() if settings is None else settings
        self.settings: HardeningSettings = instance(chosen, HardeningSettings, parameter="settings")
        if limiter is not None:
            offers(limiter, "hit", parameter="limiter", kind="a Limiter")
        if groups is not None:
            mapping(groups, parameter="groups", of="names to limits")
        self.limiter: Limiter = limiter_of(self.settings, limiter, groups)
        self.store: SessionStore = compose.session_store(self.settings) if store is None else store
        self._owned: list[Any] = [
            *((self.limiter,) if limiter is None else ()),
            *((self.store,) if store is None else ()),
        ]
        self.sessions: SessionManager = SessionManager(self.store, clock=options.get("clock"))
        self.sign_in: SignIn | None = None
        if sign_in is not None:
            given: Any = sign_in
            made: Any = given(self) if callable(given) and not isinstance(given, type) else given
            self.sign_in = offers(
                made,
                "confirmed_within",
                parameter="sign_in",
                kind="a SignIn, or a function that makes one",
            )
        if self.settings.wsgi.bans and "bans" not in options:
            options["bans"] = compose.ban_list(self.settings)
            self._owned.append(options["bans"])
        self._options = options
        self._app: ASGIApplication = self._install(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection (ASGI 3)."""
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Close the connections of the components that were not given; may be called twice."""
        for component in self._owned:
            component.close()

    def _install(self, app: Application) -> ASGIApplication:
        if hasattr(app, "build_middleware_stack"):
            from mks_hardening.contrib._starlette_app import install

            install(app, self._harden)
            return cast("ASGIApplication", app)
        # Quart and Litestar call what these attributes hold.
        for name in ("asgi_app", "asgi_handler"):
            inside = getattr(app, name, None)
            if callable(inside):
                setattr(app, name, self._harden(inside))
                return cast("ASGIApplication", app)
        return self._harden(app)

    def _harden(self, app: Application) -> ASGIApplication:
        stack = compose.harden_asgi(
            _InnermostASGI(app, self),
            self.settings,
            store=self.store,
            limiter=self.limiter,
            **self._options,
        )
        return _OutermostASGI(stack, app, self)


class _OutermostASGI:
    """Outermost middleware; a request of the application to itself with a copy of its scope passes it by.

    Everything is decided in such a scope.
    """

    __slots__ = ("_app", "_hardening", "_inside")

    def __init__(self, app: ASGIApplication, inside: ASGIApplication, hardening: Hardening) -> None:
        self._app = app
        self._inside = inside
        self._hardening = hardening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._inside if scope.get(_KEY) is self._hardening else self._app
        await app(scope, receive, send)


class _InnermostASGI:
    """Innermost middleware: makes the components available; adds the rate-limit fields of views, corrects costs."""

    __slots__ = ("_app", "_hardening")

    def __init__(self, app: ASGIApplication, hardening: Hardening) -> None:
        self._app = app
        self._hardening = hardening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_request(scope):
            await self._app(scope, receive, send)
            return
        if _KEY in scope:
            raise ConfigurationError(
                "two sessions at once: this application is mounted in one that is hardened; leave Hardening out "
                "here, the dependencies of a mounted application use the Hardening around it",
                parameter="app",
            )
        inner = private_scope(scope)
        inner[_KEY] = self._hardening
        share_decisions(inner)
        end = ResponseEnd(inner)

        async def send_with_limits(message: Message) -> None:
            await end.before(message)
            if message["type"] in HEADS:
                headers = raw_headers(message)
                fields = limit_fields(inner, message["status"], decoded(headers))
                if fields:
                    message = with_headers(message, headers + encoded(fields))
            await send(message)

        try:
            await self._app(inner, receive, send_with_limits)
        finally:
            await end.finalize(complete=False)


def hardening_of(scope: Mapping[str, Any]) -> Hardening:
    """Return the ``Hardening`` of the application that handles a request.

    Raises:
        ConfigurationError: the application is not hardened.
    """
    found: Hardening | None = scope.get(_KEY)
    if found is None:
        raise ConfigurationError(
            "this request did not come through the middleware: call Hardening(app, settings) where the "
            "application is made",
            parameter="app",
        )
    return found


exported(__name__, [Hardening])

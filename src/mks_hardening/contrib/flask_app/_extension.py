"""The Flask extension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g, request

from mks_hardening import compose
from mks_hardening._core.checks import instance, mapping, offers, strings
from mks_hardening._core.web.environ_keys import REQUEST_ID_KEY, ROUTE_KEY, SESSION_KEY
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wrappers_inside
from mks_hardening.contrib._limited_views import Groups, limit_fields, limiter_of
from mks_hardening.contrib.flask_app._commands import commands
from mks_hardening.contrib.flask_app._conflicts import log_doubles, reject_conflicts
from mks_hardening.contrib.flask_app._current_request import csp_nonce, current_csrf_token
from mks_hardening.contrib.flask_app._installed import NAME, Installed, installed
from mks_hardening.contrib.flask_app._problems import install as install_problems
from mks_hardening.contrib.flask_app._session import HardenedSessionInterface
from mks_hardening.contrib.flask_app._view_limits import check_limits
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import SessionManager, SessionTimeoutMiddleware
from mks_hardening.wsgi._response_costs import ResponseHead, counted_body

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import SignIn

__all__ = ["Hardening"]

_USER_KEYS: Final = ("_user_id", "user_id")
_OUTERMOST: Final = "mks_hardening.outermost"
_MOUNTED: Final = "Hardening(app, settings, mounted=True)"


class Hardening:
    """Flask extension that wraps an application with ``compose.harden_wsgi`` and integrates it with Flask.

    ``flask.session`` is stored in our session. ``g.request_id`` is set, the request log contains the route, and
    errors are problem documents for clients that do not ask for a page. Templates can use ``current_csrf_token()``
    and ``csp_nonce()``, views ``limit``, and the command line ``flask mks``.

    Args:
        app: the application; omit it in an application factory and call ``init_app`` for each application.
        settings: the settings; read from the environment by default.
        store: session store; created from the settings by default.
        limiter: limiter for ``limit`` and ``rate_limits``; created from the settings by default.
        groups: limits by group for the default limiter, in addition to ``DEFAULT_RATE_LIMITS``.
        sign_in: the application's ``SignIn``, whose account locks ``flask mks unlock`` can lift; or a function that
            creates it from ``Installed``, of which it needs ``sessions.end_user``.
        user_keys: names in ``flask.session`` that hold the signed-in user: setting one signs in, removing it signs
            out. The names of Flask-Login and of the Flask tutorial are the default.
        mounted: whether the application is mounted in another hardened application and shares its middleware.
        options: further options of ``compose.harden_wsgi``. Static files are always public and never count as
            activity.

    Raises:
        ConfigurationError: the application is already hardened, a conflicting extension is installed, a view is
            limited by an unknown group, or ``harden_wsgi`` rejects an option.
    """

    def __init__(
        self, app: Flask | None = None, settings: HardeningSettings | None = None, **options: Any
    ) -> None:
        self._settings = settings
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, settings: HardeningSettings | None = None, **options: Any) -> Installed:
        """Harden one application; arguments given here take precedence over those of the constructor.

        Returns:
            The components of the application, also available at ``app.extensions["mks_hardening"]``.
        """
        chosen = settings or self._settings or HardeningSettings.from_env()
        return _install(app, chosen, **{**self._options, **options})


def _install(
    app: Flask,
    settings: HardeningSettings,
    *,
    store: SessionStore | None = None,
    limiter: Limiter | None = None,
    groups: Groups | None = None,
    sign_in: SignIn | Callable[[Installed], SignIn] | None = None,
    user_keys: Iterable[str] = _USER_KEYS,
    public_paths: Iterable[str] = (),
    passive_paths: Iterable[str] = (),
    mounted: bool = False,
    **options: Any,
) -> Installed:
    instance(app, Flask, parameter="app")
    instance(settings, HardeningSettings, parameter="settings")
    if limiter is not None:
        offers(limiter, "hit", parameter="limiter", kind="a Limiter")
    if groups is not None:
        mapping(groups, parameter="groups", of="names to limits")
    if sign_in is not None and (isinstance(sign_in, type) or not callable(sign_in)):
        _sign_in(sign_in)
    # Two layers would check the session twice, and the inner one would see the cookie that the outer one removed.
    if NAME in app.extensions:
        raise ConfigurationError(f"{app!r} is hardened twice: call Hardening once for it", parameter="app")
    reject_conflicts(app)
    parts = _parts(settings, store, limiter, groups, clock=options.get("clock"))
    if settings.wsgi.bans and "bans" not in options:
        options["bans"] = compose.ban_list(settings)
        parts.owned = (*parts.owned, options["bans"])
    if sign_in is not None:
        parts.sign_in = _sign_in(sign_in(parts) if callable(sign_in) else sign_in)
    static = (f"{app.static_url_path}/",) if app.has_static_folder and app.static_url_path else ()
    inside = _InnermostWSGI(app.wsgi_app)
    stack = compose.harden_wsgi(
        inside,
        settings,
        store=parts.store,
        limiter=parts.limiter,
        public_paths=(*static, *public_paths),
        passive_paths=(*static, *passive_paths),
        **options,
    )
    sessions = next(found for found in wrappers_inside(stack) if isinstance(found, SessionTimeoutMiddleware))
    interface = HardenedSessionInterface(
        sessions.open,
        user_keys=strings(user_keys, parameter="user_keys", of="names"),
        cookie_name=sessions.cookie_name,
    )
    app.view_functions = _CheckedViews(app.view_functions, parts.limiter)
    app.extensions[NAME] = parts
    # First, so that the application's own before_request functions run after it.
    app.before_request_funcs.setdefault(None, []).insert(
        0, _BeforeRequest(app, interface, None if mounted else stack)
    )
    app.session_interface = interface
    install_problems(app)
    app.add_template_global(current_csrf_token)
    app.add_template_global(csp_nonce)
    app.cli.add_command(commands)
    setattr(app, "wsgi_app", inside if mounted else _OutermostMiddleware(stack, inside))  # noqa: B010 - a method, for type checkers
    return parts


def _sign_in(given: Any) -> SignIn:
    found: SignIn = offers(
        given, "unlock", parameter="sign_in", kind="a SignIn, or a function that makes one"
    )
    return found


def _parts(
    settings: HardeningSettings,
    store: SessionStore | None,
    limiter: Limiter | None,
    groups: Groups | None,
    *,
    clock: Any,
) -> Installed:
    chosen = limiter_of(settings, limiter, groups)
    owned: list[Any] = [] if chosen is limiter else [chosen]
    if store is None:
        owned.append(store := compose.session_store(settings))
    return Installed(
        settings=settings,
        store=store,
        sessions=SessionManager(store, clock=clock),
        limiter=chosen,
        owned=tuple(owned),
    )


class _InnermostWSGI:
    """Innermost middleware: adds the rate-limit fields of the view's limits, and corrects their costs."""

    __slots__ = ("_app",)

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        head = ResponseHead()

        def announce(status: str, headers: Headers) -> str:
            head.status = code = int(status[:3])
            headers += limit_fields(environ, code, headers)
            return status

        return counted_body(self._app(environ, with_step(start_response, announce)), environ, head)


class _OutermostMiddleware:
    """Outermost middleware: rejects wrappers around the hardened application that would defeat it.

    A request that the application makes to itself with a copy of its environ passes: everything is decided in it.
    """

    __slots__ = ("_app", "_inside")

    def __init__(self, app: WSGIApplication, inside: WSGIApplication) -> None:
        self._app = app
        self._inside = inside

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        is_own = environ.get(_OUTERMOST) is self
        if is_own:
            return self._inside(environ, start_response)
        if SESSION_KEY in environ:
            raise ConfigurationError(
                "two sessions at once: this application is mounted in one that is hardened; "
                f"harden it by {_MOUNTED}",
                parameter="app",
            )
        if "werkzeug.proxy_fix.orig" in environ:
            raise ConfigurationError(
                "wrong order of middleware: ProxyFix is outside Hardening and trusts every client; remove it "
                "and name the proxies in MKS_TRUSTED_PROXIES",
                parameter="app",
            )
        environ[_OUTERMOST] = self
        return self._app(environ, start_response)


class _BeforeRequest:
    """Function before each request: sets route and request id, and once checks for later changes to the app."""

    def __init__(
        self, app: Flask, interface: HardenedSessionInterface, stack: WSGIApplication | None
    ) -> None:
        self._app = app
        self._interface = interface
        self._stack = stack
        self._looked = False

    def __call__(self) -> None:
        environ = request.environ
        g.request_id = environ.get(REQUEST_ID_KEY)
        if not self._looked:
            self._check_setup()
        if request.url_rule is not None:
            environ[ROUTE_KEY] = environ.get("SCRIPT_NAME", "") + request.url_rule.rule

    def _check_setup(self) -> None:
        if self._app.session_interface is not self._interface:
            raise ConfigurationError(
                f"two sessions at once: {type(self._app.session_interface).__name__} was put in place of ours "
                "after Hardening; remove that extension, flask.session is already kept in the store",
                parameter="app",
            )
        reject_conflicts(self._app)
        for function in chain.from_iterable(self._app.before_request_funcs.values()):
            check_limits(
                installed(self._app).limiter, "before_request", function
            )  # of blueprints and applications
        inside = list(wrappers_inside(self._app))
        if self._stack is not None and self._stack not in inside and _is_bare(self._app, inside):
            raise ConfigurationError(
                "wrong order of middleware: app.wsgi_app was replaced after Hardening; wrap the existing one, "
                "app.wsgi_app = Wrapper(app.wsgi_app)",
                parameter="app",
            )
        # Last, so that a rejected application is rejected at every request, not only at the first.
        self._looked = True
        log_doubles(self._app)


def _is_bare(app: Flask, inside: list[object]) -> bool:
    """Return whether the application's own WSGI entry point is reachable without ours."""
    # By the bound method, because third-party wrappers hold `app.wsgi_app` and not the application.
    return any(getattr(found, "__self__", None) is app for found in inside)


class _CheckedViews(dict[str, Any]):
    """View functions by endpoint; rejects a view limited by an undefined group when it is registered."""

    def __init__(self, views: Mapping[str, Any], limiter: Limiter) -> None:
        for endpoint, view in views.items():
            check_limits(limiter, endpoint, view)
        super().__init__(views)
        self._limiter = limiter

    def __setitem__(self, endpoint: str, view: Any) -> None:
        check_limits(self._limiter, endpoint, view)
        super().__setitem__(endpoint, view)

"""The extension: one line that puts everything around an application of Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g, request

from mks_hardening import compose
from mks_hardening._core.checks import instance, mapping, offers, texts
from mks_hardening._core.web.environ_keys import REQUEST_ID_KEY, ROUTE_KEY, SESSION_KEY
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._core.web.wsgi_stack import wrappers_inside
from mks_hardening.contrib._limited_views import limit_fields
from mks_hardening.contrib.flask_app._commands import commands
from mks_hardening.contrib.flask_app._conflicts import refuse_others
from mks_hardening.contrib.flask_app._current_request import csp_nonce, current_csrf_token
from mks_hardening.contrib.flask_app._installed import NAME, Installed, installed
from mks_hardening.contrib.flask_app._problems import install as install_problems
from mks_hardening.contrib.flask_app._session import HardenedSessionInterface
from mks_hardening.contrib.flask_app._view_limits import check_limits
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import DEFAULT_RATE_LIMITS
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import SessionManager, SessionTimeoutMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening.protocols import Limiter, SessionStore
    from mks_hardening.security import SignIn

__all__ = ["Hardening"]

_USER_KEYS: Final = ("_user_id", "user_id")
_MOUNTED: Final = "Hardening(app, settings, mounted=True)"


class Hardening:
    """Puts ``compose.harden_wsgi`` around an application, and makes Flask speak with it.

    ``flask.session`` is kept inside our session. ``g.request_id`` is set, the request record names the route,
    errors are problem documents for clients that do not ask for a page, ``current_csrf_token()`` and
    ``csp_nonce()`` can be used in templates, ``limit`` at views, and ``flask mks`` on the command line.

    Args:
        app: the application; in a factory leave it out and call ``init_app``, for as many as there are.
        settings: those of all areas; read from the environment if left out.
        store: where sessions are kept; by the settings if left out.
        limiter: counts for ``limit`` and for ``rate_limits``; by the settings if left out.
        groups: limits by group for the limiter that is made here, beside ``DEFAULT_RATE_LIMITS``.
        sign_in: the application's, so that ``flask mks unlock`` can lift its locks; or a function that makes it
            from what the application has now (``Installed``), of which it needs ``sessions.end_user``.
        user_keys: names in ``flask.session`` under which the application keeps who is signed in: setting one signs
            in, taking it out signs out. Flask-Login and Flask's tutorial are known by default.
        mounted: the application is mounted in another one that is hardened, and shares its wrappers.
        options: all others of ``compose.harden_wsgi``; static files are public and no activity in any case.

    Raises:
        ConfigurationError: hardened twice, another extension does the same, a view is limited by an unknown group,
            or whatever ``harden_wsgi`` refuses.
    """

    def __init__(
        self, app: Flask | None = None, settings: HardeningSettings | None = None, **options: Any
    ) -> None:
        self._settings = settings
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, settings: HardeningSettings | None = None, **options: Any) -> Installed:
        """Harden one application; what is given here wins over the constructor.

        Returns:
            What it has now; also at ``app.extensions["mks_hardening"]``.
        """
        chosen = settings or self._settings or HardeningSettings.from_env()
        return _install(app, chosen, **{**self._options, **options})


def _install(
    app: Flask,
    settings: HardeningSettings,
    *,
    store: SessionStore | None = None,
    limiter: Limiter | None = None,
    groups: Mapping[str, Any] | None = None,
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
    # Two layers would judge one session twice, and the inner one would see the cookie the outer has taken.
    if NAME in app.extensions:
        raise ConfigurationError(f"{app!r} is hardened twice: call Hardening once for it", parameter="app")
    if limiter is not None and groups is not None:
        raise ConfigurationError("groups belong to the limiter: give it them, not both", parameter="groups")
    refuse_others(app)
    parts = _parts(settings, store, limiter, groups, clock=options.get("clock"))
    if sign_in is not None:
        parts.sign_in = _sign_in(sign_in(parts) if callable(sign_in) else sign_in)
    static = (f"{app.static_url_path}/",) if app.has_static_folder and app.static_url_path else ()
    inside = _Inside(app.wsgi_app)
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
        user_keys=texts(user_keys, parameter="user_keys", of="names"),
        cookie_name=sessions.cookie_name,
    )
    app.view_functions = _CheckedViews(app.view_functions, parts.limiter)
    app.extensions[NAME] = parts
    # First, so that what the application does before a request finds it done.
    app.before_request_funcs.setdefault(None, []).insert(
        0, _Begin(app, interface, None if mounted else stack)
    )
    app.session_interface = interface
    install_problems(app)
    app.add_template_global(current_csrf_token)
    app.add_template_global(csp_nonce)
    app.cli.add_command(commands)
    setattr(app, "wsgi_app", inside if mounted else _Entry(stack))  # noqa: B010 - a method, for type checkers
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
    groups: Mapping[str, Any] | None,
    *,
    clock: Any,
) -> Installed:
    owned: list[Any] = []
    if store is None:
        owned.append(store := compose.session_store(settings))
    if limiter is None:
        limiter = compose.rate_limiter(settings, {**DEFAULT_RATE_LIMITS, **(groups or {})})
        owned.append(limiter)
    return Installed(
        settings=settings,
        store=store,
        sessions=SessionManager(store, clock=clock),
        limiter=limiter,
        owned=tuple(owned),
    )


class _Inside:
    """Between the wrappers and the application: tells clients where they stand with the limits of the view."""

    __slots__ = ("_app",)

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def announce(status: str, headers: Headers) -> str:
            headers += limit_fields(environ, int(status[:3]), headers)
            return status

        return self._app(environ, with_step(start_response, announce))


class _Entry:
    """Outside of all wrappers: refuses what has been put around them and undoes them."""

    __slots__ = ("_app",)

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if SESSION_KEY in environ:
            raise ConfigurationError(
                "two sessions at once: this application is mounted in one that is hardened; "
                f"harden it by {_MOUNTED}",
                parameter="app",
            )
        if "werkzeug.proxy_fix.orig" in environ:
            raise ConfigurationError(
                "wrong order of wrapping: ProxyFix stands around Hardening and believes every client; leave it out "
                "and name the proxies in MKS_TRUSTED_PROXIES",
                parameter="app",
            )
        return self._app(environ, start_response)


class _Begin:
    """Runs before each request: the route for its record, the id for views, and once a look at what came later."""

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
            self._look()
        if request.url_rule is not None:
            environ[ROUTE_KEY] = environ.get("SCRIPT_NAME", "") + request.url_rule.rule

    def _look(self) -> None:
        if self._app.session_interface is not self._interface:
            raise ConfigurationError(
                f"two sessions at once: {type(self._app.session_interface).__name__} was put in place of ours "
                "after Hardening; leave that extension out, flask.session is kept in the store already",
                parameter="app",
            )
        refuse_others(self._app)
        for function in chain.from_iterable(self._app.before_request_funcs.values()):
            check_limits(
                installed(self._app).limiter, "before_request", function
            )  # of blueprints and applications
        inside = list(wrappers_inside(self._app))
        if self._stack is not None and self._stack not in inside and _is_bare(self._app, inside):
            raise ConfigurationError(
                "wrong order of wrapping: app.wsgi_app was replaced after Hardening; wrap what is there, "
                "app.wsgi_app = Wrapper(app.wsgi_app)",
                parameter="app",
            )
        # Last: an application that is refused is refused at every request, not at the first alone.
        self._looked = True


def _is_bare(app: Flask, inside: list[object]) -> bool:
    """Whether the application's own entry can be reached without ours."""
    # By the bound method, as wrappers that others make hold `app.wsgi_app` and not the application.
    return any(getattr(found, "__self__", None) is app for found in inside)


class _CheckedViews(dict[str, Any]):
    """The views by endpoint; one that is limited by a group nobody has defined is refused when it is registered."""

    def __init__(self, views: Mapping[str, Any], limiter: Limiter) -> None:
        for endpoint, view in views.items():
            check_limits(limiter, endpoint, view)
        super().__init__(views)
        self._limiter = limiter

    def __setitem__(self, endpoint: str, view: Any) -> None:
        check_limits(self._limiter, endpoint, view)
        super().__setitem__(endpoint, view)

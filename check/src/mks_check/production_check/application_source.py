"""What can be seen of an application once it is imported: middleware, settings, routes. No request is sent."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from mks_check.production_check.application_facts import (
    AdapterFinding,
    ApplicationFacts,
    CorsFacts,
    RouteFacts,
)
from mks_hardening._core.web.wsgi_stack import class_names_inside, wrappers_inside

__all__ = ["application_facts"]

FromApplication: TypeAlias = Any
"""An object of the application or its framework, of which nothing is known."""

_BLOCKING: Final = frozenset((
    "time.sleep", "requests.get", "requests.post", "requests.put", "requests.request", "urllib.request.urlopen",
    "subprocess.run", "subprocess.check_output", "subprocess.check_call", "os.system",
))  # fmt: skip
_MOST_ROUTES: Final = 2000
_DEPTH: Final = 4
_DJANGO: Final = (
    "DEBUG", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "ALLOWED_HOSTS", "SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST",
    "SESSION_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY", "SESSION_COOKIE_SAMESITE", "SESSION_COOKIE_AGE",
    "SESSION_SERIALIZER", "SESSION_ENGINE", "CSRF_COOKIE_SECURE", "CSRF_TRUSTED_ORIGINS", "PASSWORD_HASHERS",
    "DATA_UPLOAD_MAX_MEMORY_SIZE", "CORS_ALLOW_ALL_ORIGINS", "CORS_ALLOW_CREDENTIALS", "MIDDLEWARE",
    "SECURE_HSTS_SECONDS", "SECURE_SSL_REDIRECT", "CELERY_TASK_SERIALIZER", "CELERY_ACCEPT_CONTENT",
    "CELERY_BROKER_TRANSPORT_OPTIONS", "CELERY_TASK_TIME_LIMIT",
)  # fmt: skip


def application_facts(app: object) -> ApplicationFacts:
    """Return the facts of an application, or of one that is named ``module:name``.

    Nothing that the application does leaves this function as an exception, except interrupts.
    """
    before = {thread.ident for thread in threading.enumerate()}
    kind = type(app)  # an object may raise at any question, even that of its class
    target = str(app) if issubclass(kind, str) else kind.__name__
    try:
        found = _imported(target) if issubclass(kind, str) else app
        return _facts_of(found, target, tuple(_new_threads(before)))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a module, too, is a finding
        return ApplicationFacts(target=target, error=f"{type(error).__name__}: {error}")


def _imported(target: str) -> object:
    operators_module, colon, name = target.partition(":")
    if not (operators_module and colon and name):
        raise ValueError("the application must be named MODULE:NAME")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as gunicorn does, for an application that is not installed
        sys.path.insert(0, folder)
    found: FromApplication = import_module(operators_module)
    called = name.endswith("()")
    for part in name.removesuffix("()").split("."):
        found = getattr(found, part)
    return found() if called else found


def _new_threads(before: set[int | None]) -> Iterator[str]:
    for thread in threading.enumerate():
        if thread.ident not in before:
            yield thread.name


def _facts_of(app: object, target: str, threads: tuple[str, ...]) -> ApplicationFacts:
    inside = list(wrappers_inside(app))
    names = list(class_names_inside(app))
    framework_app: FromApplication = next((each for each in inside if _framework(each)), None)
    framework = _framework(framework_app) if framework_app is not None else ""
    # Our adapter puts its wrappers where Starlette builds its own, with the first request.
    late: FromApplication = getattr(getattr(framework_app, "build_middleware_stack", None), "_stack", None)
    if late is not None:
        inside += wrappers_inside(late)
        names = [*class_names_inside(late), *names]
    config: dict[str, object] = {}
    routes: list[RouteFacts] = []
    debug, documentation = False, ""
    if framework_app is None:
        pass
    elif framework == "flask":
        config = dict(cast("Mapping[str, object]", framework_app.config))
        debug = bool(framework_app.debug)
        routes = list(_flask_routes(framework_app))
        names += _flask_extensions(framework_app)
    elif framework == "django":
        config = _django_settings()
        debug = bool(config.get("DEBUG"))
        names += [path.rpartition(".")[2] for path in _texts(config.get("MIDDLEWARE"))]
    elif framework == "starlette":
        debug = bool(getattr(framework_app, "debug", False))
        routes = list(_starlette_routes(framework_app))
        names += ["Limiter"] * _has_limited_route(framework_app)
        documentation = str(getattr(framework_app, "openapi_url", "") or "")
    return ApplicationFacts(
        target=target,
        framework=framework,
        wrappers=tuple(names),
        config=config,
        debug=debug,
        trusted=_trusted(inside),
        routes=tuple(routes),
        cors=tuple(_cors(inside, config)),
        session_store=_session_store(inside),
        threads=threads,
        documentation=documentation,
        adapter_findings=tuple(_adapter_findings(framework, framework_app)),
    )


def _framework(app: object) -> str:
    for kind in type(app).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "flask" and kind.__name__ == "Flask":
            return "flask"
        if package == "django" and kind.__name__ in {"WSGIHandler", "ASGIHandler"}:
            return "django"
        if package in {"starlette", "fastapi"} and kind.__name__ in {"Starlette", "FastAPI"}:
            return "starlette"
    return ""


def _texts(value: object) -> list[str]:
    items = cast("Iterable[object]", value) if isinstance(value, (list, tuple)) else ()
    return [item for item in items if isinstance(item, str)]


def _django_settings() -> dict[str, object]:
    from mks_hardening.contrib.django_app._django import project

    settings = project()
    return {name: getattr(settings, name) for name in _DJANGO if hasattr(settings, name)}


def _flask_routes(app: FromApplication) -> Iterator[RouteFacts]:
    for number, rule in enumerate(app.url_map.iter_rules()):
        if number >= _MOST_ROUTES:
            return
        view = app.view_functions.get(rule.endpoint)
        yield RouteFacts(
            path=str(rule.rule), methods=frozenset(rule.methods or ()), blocking=tuple(_blocking(view))
        )


def _flask_extensions(app: FromApplication) -> list[str]:
    """Return names of the classes and functions that extensions have put around requests."""
    found = [type(app.session_interface).__name__]
    functions = [*app.before_request_funcs.get(None, ()), *app.after_request_funcs.get(None, ())]
    for function in functions:
        owner = getattr(function, "__self__", None)
        module = str(getattr(function, "__module__", "") or "")
        # Flask-WTF registers a closure.
        found.append(
            type(owner).__name__ if owner is not None else f"{module}.{getattr(function, '__name__', '')}"
        )
    found += [type(extension).__name__ for extension in app.extensions.values()]
    return found


def _starlette_routes(app: FromApplication) -> Iterator[RouteFacts]:
    for route in list(getattr(app, "routes", ()))[:_MOST_ROUTES]:
        methods = cast("Iterable[str]", getattr(route, "methods", None) or ())
        view = getattr(route, "endpoint", None)
        yield RouteFacts(
            path=str(getattr(route, "path", "")), methods=frozenset(methods), blocking=tuple(_blocking(view))
        )


def _has_limited_route(app: FromApplication) -> bool:
    """Return whether a route of FastAPI depends on ``limit`` of our adapter."""
    for route in list(getattr(app, "routes", ()))[:_MOST_ROUTES]:
        for dependency in getattr(getattr(route, "dependant", None), "dependencies", ()):
            call = getattr(dependency, "call", None)
            if "limit" in f"{getattr(call, '__qualname__', '')} {type(call).__name__}".lower():
                return True
    return False


def _blocking(view: FromApplication) -> Iterator[str]:
    """Yield calls in an asynchronous view that hold up every other request."""
    if not inspect.iscoroutinefunction(view):
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(view)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and id(node) not in awaited
            and (name := ast.unparse(node.func)) in _BLOCKING
        ):
            yield name


def _session_store(inside: Iterable[object]) -> str:
    """Return the class name of the store of our session middleware, which has no public attribute for it."""
    waiting = [(each, 0) for each in inside if type(each).__name__ == "SessionTimeoutMiddleware"]
    seen = set[int]()
    while waiting:
        item, depth = waiting.pop()
        if type(item).__name__.endswith("SessionStore"):
            return type(item).__name__
        if id(item) in seen or depth > _DEPTH or not type(item).__module__.startswith("mks_hardening."):
            continue
        seen.add(id(item))
        waiting += [(value, depth + 1) for value in _values_of(item)]
    return ""


def _values_of(item: object) -> Iterator[object]:
    yield from cast("dict[str, object]", getattr(item, "__dict__", {})).values()
    for kind in type(item).__mro__:
        for name in cast("Iterable[str]", getattr(kind, "__slots__", ())):
            with suppress(AttributeError):
                yield getattr(item, name)


def _trusted(inside: Iterable[object]) -> tuple[str, ...] | None:
    for each in inside:
        for value in _values_of(each) if type(each).__name__ == "TrustedProxyMiddleware" else ():
            for trust in (value, *_values_of(value)):
                proxies: object = getattr(trust, "trusted_proxies", None)
                if type(trust).__name__ == "ProxyTrust" and isinstance(proxies, tuple):
                    return tuple(map(str, cast("tuple[object, ...]", proxies)))
    return None


def _cors(inside: Iterable[FromApplication], config: Mapping[str, object]) -> Iterator[CorsFacts]:
    for each in inside:
        for registered in getattr(each, "user_middleware", ()):
            options = cast("Mapping[str, object]", getattr(registered, "kwargs", {}) or {})
            if getattr(getattr(registered, "cls", None), "__name__", "") == "CORSMiddleware":
                any_origin = (
                    "*" in _texts(options.get("allow_origins")) or options.get("allow_origin_regex") == ".*"
                )
                yield CorsFacts(any_origin=any_origin, credentials=options.get("allow_credentials") is True)
    if config.get("CORS_ALLOW_ALL_ORIGINS") is True:
        yield CorsFacts(any_origin=True, credentials=config.get("CORS_ALLOW_CREDENTIALS") is True)
    origins = config.get("CORS_ORIGINS")
    if origins == "*" or "*" in _texts(origins):
        yield CorsFacts(any_origin=True, credentials=config.get("CORS_SUPPORTS_CREDENTIALS") is True)


def _adapter_findings(framework: str, app: FromApplication) -> Iterator[AdapterFinding]:
    """Yield the findings of the check that our adapter for the framework has."""
    if framework == "flask" and "mks_hardening" in app.extensions:
        from mks_check.production_check.flask_check import findings

        for found in findings(app):
            yield AdapterFinding(id=found.id, text=found.text)
    elif framework == "django":
        from mks_hardening.contrib.django_app._django import checks

        for problem in checks.run_checks(include_deployment_checks=True):
            if str(problem.id).startswith("mks_hardening."):
                yield AdapterFinding(id="MKS-DJANGO-001", text=f"{problem.id}: {problem.msg}")

"""Inspection of a stack of middleware: whether it is WSGI, and which middleware it contains, also under ASGI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from mks_hardening._core.checks import function
from mks_hardening.exceptions import ConfigurationError

__all__ = ["class_names_inside", "has_inside", "is_asgi", "wrappers_inside", "wsgi_application"]

App = TypeVar("App", bound=Callable[..., Any])

# Attributes with the inner application: ours, werkzeug, paste, whitenoise, Flask, Quart, Litestar.
_INNER = ("_app", "app", "application", "wsgi_app", "asgi_app", "asgi_handler")
_MOST = 64


def wsgi_application(app: App) -> App:
    """Return the application if it can be called according to PEP 3333.

    Raises:
        ConfigurationError: it is not callable, is a coroutine function, or does not take environ and
            ``start_response``, like ASGI applications.
    """
    if is_asgi(function(app, parameter="app", may_be_async=True)):
        raise ConfigurationError(
            f"app must be a WSGI application, called with environ and start_response, not "
            f"{getattr(app, '__qualname__', type(app).__name__)}: for ASGI (FastAPI, Starlette, Litestar, Quart, "
            "Django's get_asgi_application) use harden_asgi or the classes of mks_hardening.asgi",
            parameter="app",
        )
    return app


def is_asgi(app: Any) -> bool:
    """Return whether a callable is no WSGI application: it is asynchronous, or does not take two arguments."""
    import inspect

    return any(map(inspect.iscoroutinefunction, (app, app.__call__))) or not _takes_two(app)


def _takes_two(app: Callable[..., Any]) -> bool:
    """Whether a call with two positional arguments is possible; true if the signature is unknown."""
    import inspect

    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True


def wrappers_inside(app: object) -> Iterator[object]:
    """Yield the application and everything that it wraps, from the outside in, as far as attributes allow.

    Args:
        app: a WSGI or ASGI application.
    """
    waiting, seen = [app], set[int]()
    while waiting and len(seen) < _MOST:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        mounts: object = getattr(current, "mounts", None)
        if isinstance(mounts, Mapping):
            waiting += mounts.values()
        inner = (getattr(current, name, None) for name in _INNER)
        waiting += [found for found in inner if callable(found)]


def class_names_inside(app: object) -> Iterator[str]:
    """Yield the class names of ``wrappers_inside``, and of the middleware registered with Starlette or FastAPI.

    Classes of other packages have their module in front: ``werkzeug.middleware.proxy_fix.ProxyFix``.
    """
    for inside in wrappers_inside(app):
        yield _class_name(type(inside))
        # Starlette creates them with the first request, so there are no objects yet.
        for registered in getattr(inside, "user_middleware", ()):
            yield _class_name(getattr(registered, "cls", None))


def _class_name(found: Any) -> str:
    # A subclass of one of ours, in an application, is one of ours.
    for cls in getattr(found, "__mro__", ()):
        if cls.__module__.startswith("mks_hardening."):
            return str(cls.__name__)
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__name__', '')}"


def has_inside(app: object, name: str) -> bool:
    """Return whether the application, or something that it wraps, is an instance of our class of this name."""
    return name in class_names_inside(app)

"""Looking into a stack of WSGI wrappers: whether it is WSGI, and what already stands around an application."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from mks_hardening._core.checks import function
from mks_hardening.exceptions import ConfigurationError

__all__ = ["wrappers_inside", "wsgi_application"]

App = TypeVar("App", bound=Callable[..., Any])

# Where wrappers keep what they wrap: ours, werkzeug's and paste's, whitenoise's, and an application of Flask.
_INNER = ("_app", "app", "application", "wsgi_app")
_MOST = 64


def wsgi_application(app: App) -> App:
    """The application, if it can be called as PEP 3333 says.

    Raises:
        ConfigurationError: it cannot be called, is a coroutine function, or does not take environ and
            ``start_response``, as applications of ASGI.
    """
    import inspect

    given: Any = function(app, parameter="app")
    if any(map(inspect.iscoroutinefunction, (given, given.__call__))) or not _takes_two(app):
        raise ConfigurationError(
            f"app must be a WSGI application, called with environ and start_response, not "
            f"{getattr(app, '__qualname__', type(app).__name__)}: this package has no wrappers for ASGI (FastAPI, "
            "Starlette, Quart, Django's get_asgi_application). There, use what needs no wrapper: RateLimiter.ahit, "
            "the methods of caches and stores that begin with a, @cached, setup_logging, the database and tasks",
            parameter="app",
        )
    return app


def _takes_two(app: Callable[..., Any]) -> bool:
    """Whether a call with two positional arguments is possible, as far as the signature can be known."""
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
    """The application and whatever it wraps, from the outside in, as far as wrappers let one look.

    Args:
        app: a WSGI application.
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

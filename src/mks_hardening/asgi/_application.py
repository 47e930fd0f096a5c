"""Validation of ASGI applications."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mks_hardening._core.checks import function
from mks_hardening.exceptions import ConfigurationError

__all__ = ["asgi_application"]

App = TypeVar("App", bound=Callable[..., Any])


def asgi_application(app: App) -> App:
    """Return the application if it can be called according to ASGI 3.

    Raises:
        ConfigurationError: it is not callable, or is not called with scope, receive and send, like WSGI
            applications and those of ASGI 2.
    """
    given: Any = function(app, parameter="app", may_be_async=True)
    if not _takes_three(given):
        name = getattr(app, "__qualname__", type(app).__name__)
        raise ConfigurationError(
            f"app must be an ASGI application, called with scope, receive and send, not {name}: for WSGI "
            "(Flask, Django's get_wsgi_application) use the classes of mks_hardening.wsgi or harden_wsgi",
            parameter="app",
        )
    return app


def _takes_three(app: Any) -> bool:
    """Whether a call with three positional arguments is possible; true if the signature is unknown."""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None, None)
    except TypeError:
        return False
    return True

"""Detection of extensions that do the same as ours and must not be combined with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["log_doubles", "reject_conflicts"]

_OTHERS: Final = {
    "flask_session": (
        "two sessions at once",
        "remove Session(app): flask.session is already kept in the store",
    ),
    "flask_seasurf": ("two CSRF checks", "remove SeaSurf(app): every unsafe request is already checked"),
}


def reject_conflicts(app: Flask) -> None:
    """Reject an application that uses such an extension.

    Raises:
        ConfigurationError: it does; the message says what to remove.
    """
    for module in _modules(app):
        found = _OTHERS.get(module.partition(".")[0])
        if found is not None:
            raise ConfigurationError(f"{found[0]}: {found[1]}", parameter="app")


def log_doubles(app: Flask) -> None:
    """Log an extension that does the same without disturbing ours, and what is ignored."""
    if any(module.partition(".")[0] == "flask_talisman" for module in _modules(app)):
        logging.getLogger("mks_hardening.wsgi").warning(
            "Talisman sets header fields: those of the same name in HeaderPolicy are ignored; remove Talisman(app) "
            "and pass its policy as headers=HeaderPolicy.web(csp=...)"
        )


def _modules(app: Flask) -> Iterator[str]:
    """Yield the modules of the session interface and of the functions around requests."""
    yield type(app.session_interface).__module__
    functions: Iterable[object] = chain(*app.before_request_funcs.values(), *app.after_request_funcs.values())
    for function in functions:
        yield getattr(function, "__module__", None) or ""

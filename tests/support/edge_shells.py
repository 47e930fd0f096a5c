"""Runs the tests of the middleware with the classes of ``mks_hardening.wsgi`` and with those for ASGI."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from asgi_bridge import ODD, SHELLS, bridged
from mks_hardening import asgi, compose, wsgi

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_SUPPORT = ("wsgi_stacks", "wsgi_record_corpus", "wsgi_session_corpus", "wsgi_edge_stack")
_CLASSES = [name for name in asgi.__all__ if name.endswith("Middleware")]


def shells_of(module: ModuleType, test: str) -> tuple[str, ...]:
    """Return the shells of a test: both, unless its module lists it in ``WSGI_ONLY``."""
    only = getattr(module, "WSGI_ONLY", None)
    return SHELLS if only is not None and test not in only else ("wsgi",)


def over(shell: str, kind: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """Return a class of ``mks_hardening.wsgi``, or the ASGI class of that name in WSGI form."""
    return kind if shell == "wsgi" else bridged(getattr(asgi, kind.__name__), odd=shell == ODD, **how)


def hardened(shell: str) -> Callable[..., Any]:
    """Return ``harden_wsgi``, or ``harden_asgi`` in WSGI form."""
    if shell == "wsgi":
        return compose.harden_wsgi
    make = bridged(compose.harden_asgi, odd=shell == ODD)
    return lambda app, settings, **options: make(app, settings=settings, **options)


def use_shell(shell: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """Replace the WSGI classes in a test module, and in its support modules."""
    if shell == "wsgi":
        return
    for each in (module, *(sys.modules[name] for name in _SUPPORT if name in sys.modules)):
        for name in _CLASSES:
            if vars(each).get(name) is getattr(wsgi, name):
                monkeypatch.setattr(each, name, bridged(getattr(asgi, name), odd=shell == ODD, **how))

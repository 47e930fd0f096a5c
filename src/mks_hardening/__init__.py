"""Production hardening for Python web applications, in packages that can each be used alone.

The packages are ``logging``, ``cache``, ``security``, ``wsgi``, ``asgi``, ``db``, ``notify`` and ``tasks``. Each is
imported on first access, and a third-party package is imported only when an object that needs it is created.
"""

from __future__ import annotations

__all__ = ["__version__", "asgi", "cache", "db", "logging", "notify", "security", "tasks", "wsgi"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mks_hardening import asgi, cache, db, logging, notify, security, tasks, wsgi

    __version__: str

_AREAS = frozenset(__all__) - {"__version__"}


def __getattr__(name: str) -> object:
    if name in _AREAS:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("mks-hardening")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Production hardening for Python web applications, in seven areas that can each be used alone.

The areas are ``logging``, ``cache``, ``security``, ``wsgi``, ``db``, ``notify`` and ``tasks``; each is imported
when it is first touched, and nothing third-party is imported before an object that needs it is built.
"""

from __future__ import annotations

__all__ = ["__version__", "cache", "db", "logging", "notify", "security", "tasks", "wsgi"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mks_hardening import cache, db, logging, notify, security, tasks, wsgi

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

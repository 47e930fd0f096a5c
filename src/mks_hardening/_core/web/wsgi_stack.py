"""Looking into a stack of WSGI wrappers: what already stands around an application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["wrappers_inside"]

# Where wrappers keep what they wrap: ours, werkzeug's and paste's, whitenoise's, and an application of Flask.
_INNER = ("_app", "app", "application", "wsgi_app")
_MOST = 64


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

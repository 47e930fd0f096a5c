"""Header fields in the arguments and results of ``call_wsgi`` and ``call_asgi``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

__all__ = ["field_pairs", "only_value"]


def field_pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Return header fields as pairs."""
    return cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers


def only_value(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """Return the value of the only header field of that name; ``None`` if there is none.

    Raises:
        AssertionError: there are several.
    """
    values = [value for field, value in headers if field.lower() == name.lower()]
    if len(values) > 1:
        raise AssertionError(f"{name} occurs {len(values)} times")
    return values[0] if values else None

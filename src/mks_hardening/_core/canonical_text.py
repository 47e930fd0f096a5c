"""Canonical text for the arguments of a function call: typed and free of collisions, or an error.

A cache key is a digest of text in which every value includes its type, so that ``1``, ``"1"``, ``True`` and ``1.0``
differ. Other objects have no such text unless they define ``__cache_key__``, because their ``repr`` may omit state
or contain an address.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from mks_hardening._core.cache_key_error import CacheKeyError

__all__ = ["canonical", "digest", "exact_type"]

_SCALARS: Final = frozenset({str, int, bool, float, bytes, type(None)})
_BY_STR: Final = frozenset({Decimal, UUID, date, timedelta})
_MOMENTS: Final = frozenset({datetime, time})
_DEEPEST: Final = 32


def canonical(arguments: tuple[object, ...]) -> str:
    """Return a text that is equal for equal arguments of equal types, and for no others.

    Raises:
        CacheKeyError: an argument (or something inside it) cannot be part of a key.
    """
    for argument in arguments:
        if type(argument) not in _SCALARS:
            return _text(arguments, _DEEPEST)
    return repr(arguments)  # for these types repr is canonical, and ten times faster


def digest(text: str) -> str:
    """Return a 160-bit digest of a text, as 40 hexadecimal digits."""
    # 160 bits: a collision would return the result of another call, so finding one on purpose must be infeasible.
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def exact_type(value: object) -> Any:
    """Return the exact type, as ``Any`` so that type checkers do not narrow it."""
    return type(value)


def _text(value: Any, depth: int) -> str:
    kind = exact_type(value)
    # Compare exact types only: a subclass of str may have its own repr, and True would equal 1.
    if kind in _SCALARS:
        return repr(value)
    # A list that contains itself would recurse for ever.
    if depth == 0:
        raise CacheKeyError("arguments are nested too deeply for a cache key")
    if kind is tuple:
        return f"({_joined(value, depth)},)"
    if kind is list:
        return f"[{_joined(value, depth)}]"
    if kind is dict:
        # Equal dicts may have been filled in a different order.
        items = sorted(f"{_text(key, depth - 1)}: {_text(item, depth - 1)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if kind in {set, frozenset}:
        return f"{kind.__name__}({', '.join(sorted(_text(item, depth - 1) for item in value))})"
    if kind in _BY_STR:
        return f"{kind.__name__}({str(value)!r})"
    if kind in _MOMENTS:
        # isoformat() contains neither the name of the zone nor which of the two hours it is when clocks are set
        # back; equal texts would be different times.
        return f"{kind.__name__}({value.isoformat()!r}, {str(value.tzinfo)!r}, {value.fold})"
    return _object_text(value, depth)


def _joined(values: Any, depth: int) -> str:
    return ", ".join([_text(item, depth - 1) for item in values])


def _object_text(value: Any, depth: int) -> str:
    kind = exact_type(value)
    own = getattr(kind, "__cache_key__", None)
    if own is not None:
        return f"{_type_name(kind)}<{_text(own(value), depth - 1)}>"
    if isinstance(value, Enum):
        return f"{_type_name(kind)}.{value.name}" if value.name else f"{_type_name(kind)}({value.value!r})"
    if isinstance(value, type):
        return f"class {_type_name(value)}"
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return f"{_type_name(kind)}({_joined(value, depth)})"
    raise CacheKeyError(
        f"{kind.__module__}.{kind.__qualname__} cannot be part of a cache key: pass an id instead, give key_func, "
        f"or define __cache_key__"
    )


def _type_name(kind: type) -> str:
    # Each call of the enclosing function creates another class with this name.
    if "<locals>" in kind.__qualname__:
        raise CacheKeyError(f"the local class {kind.__qualname__} cannot be part of a cache key")
    return f"{kind.__module__}.{kind.__qualname__}"

"""Canonical text for the arguments of a function call: typed and free of collisions, or an error.

A cache key is a digest of text in which every value includes its type, so that ``1``, ``"1"``, ``True`` and ``1.0``
differ. Objects have such a text if their class declares what they consist of: enums, named tuples, dataclasses,
msgspec structs and Pydantic models, by the fields that they compare, or any class by ``__cache_key__``. Others have
none, because their ``repr`` may omit state or contain an address.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from mks_hardening._core.cache_key_error import CacheKeyError

__all__ = ["canonical", "digest", "exact_type", "field_names"]

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
    names = field_names(kind, compared=True)
    if names is not None and tuple not in kind.__mro__:
        fields = ", ".join([f"{name}={_text(getattr(value, name), depth - 1)}" for name in names])
        # A Pydantic model compares these as well: what it was given beyond its fields, and its private attributes.
        others = [getattr(value, name, None) for name in ("__pydantic_extra__", "__pydantic_private__")]
        return (
            f"{_type_name(kind)}({fields}{''.join([f' + {_text(one, depth - 1)}' for one in others if one])})"
        )
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return f"{_type_name(kind)}({_joined(value, depth)})"
    raise CacheKeyError(
        f"{kind.__module__}.{kind.__qualname__} cannot be part of a cache key: pass an id instead, give key_func, "
        f"or define __cache_key__"
    )


def field_names(kind: Any, *, compared: bool = False) -> tuple[str, ...] | None:
    """Return the fields of a named tuple, dataclass, msgspec struct or Pydantic model; None for other classes.

    Args:
        kind: the class.
        compared: only the fields that make two objects equal; None if the class compares by identity.
    """
    if hasattr(kind, "__struct_fields__"):
        return None if compared and not kind.__struct_config__.eq else tuple(kind.__struct_fields__)
    models: Any = getattr(kind, "__pydantic_fields__", None)
    if exact_type(models) is dict:
        return tuple(models)
    # Of this class itself: a subclass without the decorator may have state that is no field.
    if "__dataclass_fields__" in kind.__dict__:
        from dataclasses import fields

        if compared and not kind.__dict__["__dataclass_params__"].eq:
            return None
        return tuple(one.name for one in fields(kind) if one.compare or not compared)
    named: Any = getattr(kind, "_fields", None)
    return tuple(named) if named is not None and tuple in kind.__mro__ else None


def _type_name(kind: type) -> str:
    # Each call of the enclosing function creates another class with this name.
    if "<locals>" in kind.__qualname__:
        raise CacheKeyError(f"the local class {kind.__qualname__} cannot be part of a cache key")
    return f"{kind.__module__}.{kind.__qualname__}"

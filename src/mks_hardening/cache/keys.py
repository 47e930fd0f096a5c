"""Keys of function calls: typed, canonical, free of collisions; what cannot be keyed is refused.

A key is a digest of text in which every value names its type, so that ``1``, ``"1"``, ``True`` and ``1.0`` stay
apart. An object whose ``repr`` may lie or hold an address has no such text unless it defines ``__cache_key__``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from itertools import count
from types import CodeType
from typing import Any, Final
from uuid import UUID, uuid4

from mks_hardening.exceptions import ConfigurationError, MksHardeningError

__all__ = ["CacheKeyError", "call_normalizer", "canonical", "digest", "function_name", "kind_of"]

_SCALARS: Final = frozenset({str, int, bool, float, bytes, type(None)})
_BY_STR: Final = frozenset({Decimal, UUID, date, timedelta})
_MOMENTS: Final = frozenset({datetime, time})
_DEEPEST: Final = 32
_local_functions: Final = count(1)


class CacheKeyError(MksHardeningError, TypeError):
    """An argument has no canonical text, so that calls could share an answer wrongly.

    Pass its id instead, give ``key_func``, or define ``__cache_key__`` on its class.
    """


def canonical(arguments: tuple[Any, ...]) -> str:
    """Text that is equal for equal arguments of equal types, and for no others.

    Raises:
        CacheKeyError: an argument (or something inside it) cannot be keyed.
    """
    for argument in arguments:
        if type(argument) not in _SCALARS:
            return _text(arguments, _DEEPEST)
    return repr(arguments)  # of these types repr is canonical, and ten times faster


def digest(text: str) -> str:
    """160 bits of a text, as 40 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def kind_of(value: object) -> Any:
    """The exact type, as something type checkers do not reason about."""
    return type(value)


def _text(value: Any, depth: int) -> str:
    kind = kind_of(value)
    if kind in _SCALARS:
        return repr(value)
    if depth == 0:
        raise CacheKeyError("arguments are nested too deeply for a cache key")
    if kind is tuple:
        return f"({_joined(value, depth)},)"
    if kind is list:
        return f"[{_joined(value, depth)}]"
    if kind is dict:
        items = sorted(f"{_text(key, depth - 1)}: {_text(item, depth - 1)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if kind in {set, frozenset}:
        return f"{kind.__name__}({', '.join(sorted(_text(item, depth - 1) for item in value))})"
    if kind in _BY_STR:
        return f"{kind.__name__}({str(value)!r})"
    if kind in _MOMENTS:
        return f"{kind.__name__}({value.isoformat()!r}, {str(value.tzinfo)!r}, {value.fold})"
    return _object_text(value, depth)


def _joined(values: Any, depth: int) -> str:
    return ", ".join([_text(item, depth - 1) for item in values])


def _object_text(value: Any, depth: int) -> str:
    kind = kind_of(value)
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
    if "<locals>" in kind.__qualname__:
        raise CacheKeyError(f"the local class {kind.__qualname__} cannot be part of a cache key")
    return f"{kind.__module__}.{kind.__qualname__}"


def function_name(function: Callable[..., Any], *, key_prefix: str) -> str:
    """What tells this function from all others, in every process that runs the same code.

    Local functions of one name are told apart by line; closures, whose captured values nobody can see, by a number
    that no other process has. ``key_prefix`` replaces all of that.

    Raises:
        ConfigurationError: an object without a name, and no ``key_prefix``.
    """
    if key_prefix:
        return key_prefix
    name, code = getattr(function, "__qualname__", None), getattr(function, "__code__", None)
    if not isinstance(name, str) or not isinstance(code, CodeType):
        raise ConfigurationError(
            f"a {type(function).__name__} has no name of its own; give key_prefix", parameter="key_prefix"
        )
    name = f"{function.__module__}.{name}"
    if code.co_freevars:
        return f"{name}#{uuid4().hex}.{next(_local_functions)}"
    return f"{name}#{code.co_firstlineno}" if "<" in name else name


def call_normalizer(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """A function with the same signature that returns its arguments in one order, with defaults filled in.

    It is compiled once, so that positional, keyword and default spellings share a key at the price of a call.
    """
    import inspect

    parameters = list(inspect.signature(function).parameters.values())
    defaults = {f"_default_of_{one.name}": one.default for one in parameters if one.default is not one.empty}
    bare = [
        one.replace(
            annotation=one.empty,
            default=one.empty if one.default is one.empty else _Verbatim(f"_default_of_{one.name}"),
        )
        for one in parameters
    ]
    names = "".join(f"{one.name}, " for one in parameters)
    source = f"lambda {str(inspect.Signature(bare))[1:-1]}: ({names})"
    normalizer: Callable[..., tuple[Any, ...]] = eval(source, defaults)  # noqa: S307 - built from identifiers only
    return normalizer


class _Verbatim:
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

"""Identify function calls in a cache: the name of the function, and its arguments in a normal order."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import CellType, CodeType, MethodType
from typing import Final, TypeAlias

from mks_hardening._core.cache_key_error import CacheKeyError
from mks_hardening._core.canonical_text import canonical, digest, exact_type
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Normalizer", "argument_error", "call_normalizer", "function_name", "function_of_key"]


_first_places: Final[dict[str, tuple[str, int]]] = {}
"""File and line of the first function with each name, which needs no line number in its key."""


def function_name(function: Callable[..., object], *, key_prefix: str) -> str:
    """Return a name that identifies this function in every process that runs the same code.

    Local functions are told apart by line number, as are functions with the same name in one module, except for the
    first: all functions registered with ``singledispatch`` are called ``_``. ``key_prefix`` replaces module, name
    and line.

    Raises:
        ConfigurationError: no ``key_prefix``, and the code does not identify the function: a lambda (a line may
            contain two), a closure (its captured values are not part of the key), a bound method (nor is its
            object), an object without a name.
    """
    if key_prefix:
        return key_prefix
    own = function
    while callable(wrapped := getattr(own, "__wrapped__", None)):  # set by functools.wraps
        _check_captured(own, wrapped)
        own = wrapped
    # A bound method looks like its function, but its object is no argument and would not be part of the key.
    if isinstance(own, MethodType):
        raise _unidentifiable_error(f"{own.__qualname__} is bound to an object, which is not part of the key")
    name, code = getattr(own, "__qualname__", None), getattr(own, "__code__", None)
    if name is None and (of_object := _object_name(own)):
        return of_object
    if not isinstance(name, str) or not isinstance(code, CodeType):
        raise _unidentifiable_error(f"a {type(function).__name__} has no name of its own")
    # Two lambdas in one line would share their results.
    if name.endswith("<lambda>"):
        raise _unidentifiable_error(
            f"the lambda in line {code.co_firstlineno} of {own.__module__} has no name of its own"
        )
    _check_captured(own, None)
    name = f"{own.__module__}.{name}"
    file, line = _first_places.setdefault(name, (code.co_filename, code.co_firstlineno))
    # The same name in another file is the same function, loaded again: a notebook cell that was run twice.
    is_another = file == code.co_filename and line != code.co_firstlineno
    return f"{name}#{code.co_firstlineno}" if "<" in name or is_another else name


def _object_name(called: object) -> str:
    """Return the name of a callable object that declares what it consists of and cannot change, or an empty one."""
    kind = exact_type(called)
    if kind.__hash__ is None:
        return ""
    try:
        return f"{kind.__module__}.{kind.__qualname__}.__call__#{digest(canonical((called,)))}"
    except CacheKeyError:
        return ""


def _check_captured(function: Callable[..., object], wrapped: object) -> None:
    """Raise an error if a function captures values; only a decorator may capture the function it decorates."""
    code = getattr(function, "__code__", None)
    names = code.co_freevars if isinstance(code, CodeType) else ()
    cells: tuple[CellType, ...] = getattr(function, "__closure__", None) or ()
    # Closures over a user or a tenant share one key, so that one user would get the results of another.
    captured = [
        name
        for name, cell in zip(names, cells, strict=True)
        if not _is_allowed_capture(function, name, cell, wrapped)
    ]
    if captured:
        what = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
        raise _unidentifiable_error(f"{what} captures {', '.join(captured)}, which is not part of the key")


def _is_allowed_capture(function: Callable[..., object], name: str, cell: CellType, wrapped: object) -> bool:
    if name == "__class__":  # used by super(): the class is part of the name
        return True
    try:
        return cell.cell_contents is function or (wrapped is not None and cell.cell_contents is wrapped)
    except ValueError:  # an empty cell: a recursive function that is still being decorated
        return name == getattr(function, "__name__", None)


def _unidentifiable_error(why: str) -> ConfigurationError:
    return ConfigurationError(f"{why}; give key_prefix", parameter="key_prefix")


_KEY_OF_CALL: Final = re.compile(r"(.+):[0-9a-f]{16,64}", re.DOTALL)


def function_of_key(key: str) -> str:
    """Return the name of the function in the key of one of its calls; of other keys, the part before a colon."""
    call = _KEY_OF_CALL.fullmatch(key)
    return call[1] if call else key.partition(":")[0] + (":*" if ":" in key else "")


Normalizer: TypeAlias = Callable[..., tuple[tuple[object, ...], tuple[type, ...]]]
"""Returns the arguments of a call in normal order, and their exact types."""


def call_normalizer(function: Callable[..., object]) -> Normalizer:
    """Return a function with the same signature that returns its arguments in order, with defaults filled in.

    It is compiled once, so that positional, keyword and default spellings share a key at the cost of one call.
    """
    import inspect

    parameters = list(inspect.signature(function).parameters.values())
    defaults = {f"_default_of_{one.name}": one.default for one in parameters if one.default is not one.empty}
    # Annotations may use names that do not exist here, and the repr of a default may not be evaluable.
    bare = [
        one.replace(
            annotation=one.empty,
            default=one.empty if one.default is one.empty else _Verbatim(f"_default_of_{one.name}"),
        )
        for one in parameters
    ]
    names = "".join(f"{one.name}, " for one in parameters)
    kinds = "".join(f"_type_of({one.name}), " for one in parameters)
    source = f"lambda {str(inspect.Signature(bare))[1:-1]}: (({names}), ({kinds}))"
    known = {"_type_of": type, **defaults}
    normalizer: Normalizer = eval(source, known)  # noqa: S307 - built from identifiers only
    return normalizer


def argument_error(function: Callable[..., object], arguments: tuple[object, ...]) -> CacheKeyError:
    """Return the error for arguments in normal order, one of which cannot be part of a key; it names that one."""
    import inspect

    for name, value in zip(inspect.signature(function).parameters, arguments, strict=True):
        try:
            canonical((value,))
        except CacheKeyError as error:
            return CacheKeyError(
                f"argument {name} of {getattr(function, '__qualname__', 'the call')}: {error}"
            )
    return CacheKeyError("the arguments cannot be part of a cache key")


class _Verbatim:
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

"""Parameter checks with uniform messages: each returns the value or raises ``ConfigurationError``.

A message contains the parameter name, what is allowed and, unless the value is a number or a string, its type. It
never contains the value, which may be a secret (except the name of a log level). Durations are checked in
``_core/durations.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, Final, TypeVar, cast

from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "boolean",
    "choice",
    "function",
    "instance",
    "instances",
    "is_async",
    "level_number",
    "mapping",
    "namespace_of",
    "number",
    "offers",
    "path_text",
    "port_number",
    "shows",
    "strings",
    "text_of",
    "whole_number",
]

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])
M = TypeVar("M", bound=Mapping[Any, Any])
P = TypeVar("P")
S = TypeVar("S", bound=str)

_LARGEST_PORT: Final = 65535
# No braces, which would change the hash tag of a Redis Cluster key, no spaces, no glob characters.
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", re.ASCII)


def whole_number(value: object, *, parameter: str, minimum: int, maximum: int | None = None) -> int:
    """Return an ``int`` within the bounds; ``True`` and ``1.0`` are rejected."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < minimum
        or (maximum is not None and value > maximum)
    ):
        raise _refused(parameter, f"a whole number {_bounds(minimum, maximum)}", value)
    return value


def number(
    value: object, *, parameter: str, minimum: float, maximum: float | None = None, above: bool = False
) -> float:
    """Return a finite number within the bounds.

    Args:
        value: value to check.
        parameter: name of the parameter.
        minimum: smallest allowed value, or with ``above`` an exclusive bound.
        maximum: largest allowed value.
        above: whether ``minimum`` itself is rejected.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not isfinite(value)
        or value < minimum
        or (above and value == minimum)
        or (maximum is not None and value > maximum)
    ):
        bounds = f"above {minimum:g}" if above and maximum is None else _bounds(minimum, maximum)
        raise _refused(parameter, f"a finite number {bounds}", value)
    return float(value)


def port_number(value: object, *, parameter: str) -> int:
    """Return a TCP port number from 1 to 65535."""
    return whole_number(value, parameter=parameter, minimum=1, maximum=_LARGEST_PORT)


def choice(value: object, choices: Iterable[S], *, parameter: str) -> S:
    """Return one of several strings."""
    words = tuple(choices)
    for word in words:
        if isinstance(value, str) and word == value:
            return word
    raise _refused(parameter, f"one of {', '.join(words)}", value)


def instance(value: object, kind: type[T], *, parameter: str) -> T:
    """Return an instance of a class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[:1] in "AEIOU" else "a"
        raise _refused(parameter, f"{article} {kind.__name__}", value)
    return value


def boolean(value: object, *, parameter: str) -> bool:
    """Return ``True`` or ``False``; ``"no"`` is rejected, since it would count as true."""
    if not isinstance(value, bool):
        raise _refused(parameter, "True or False", value)
    return value


def function(value: C, *, parameter: str, may_be_async: bool = False) -> C:
    """Return a callable.

    By default it is a plain function. The results of ``async def`` and generator functions are true whatever they
    decide, so as conditions they would turn a protection off without an error.

    Args:
        value: value to check.
        parameter: name of the parameter.
        may_be_async: whether it may be ``async def`` or a generator function.
    """
    if not callable(value):
        raise _refused(parameter, "callable", value)
    if not may_be_async and (is_async(value) or _is_generator(value)):
        raise ConfigurationError(
            f"{parameter} must be a plain function, not async def or a generator", parameter=parameter
        )
    return value


def is_async(value: object) -> bool:
    """Return whether calling an object returns a coroutine: ``async def``, or a class with such a ``__call__``."""
    import inspect  # not at module level: it is slow to import

    # The attribute is how asgiref and asyncio mark a function before Python 3.12.
    marked = getattr(value, "_is_coroutine", None) is not None
    return marked or any(inspect.iscoroutinefunction(one) for one in _called(value))


def _is_generator(value: object) -> bool:
    import inspect

    return any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in _called(value))


def _called(value: object) -> tuple[object, object]:
    """Return what runs when an object is called: a function, or the ``__call__`` of its class."""
    import functools

    while isinstance(value, functools.partial):
        value = value.func
    return value, getattr(type(value), "__call__", None)  # noqa: B004 - the function itself


def mapping(value: M, *, parameter: str, of: str) -> M:
    """Return a mapping.

    Args:
        value: value to check.
        parameter: name of the parameter.
        of: key and value types for the message (``names to limits``).
    """
    if not isinstance(value, Mapping):
        raise _refused(parameter, f"a mapping of {of}", value)
    return value


def offers(value: P, *methods: str, parameter: str, kind: str) -> P:
    """Return an object with the methods of a protocol; a class that defines them is rejected.

    Args:
        value: value to check.
        methods: names of the methods.
        parameter: name of the parameter.
        kind: expected kind, with its article.
    """
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        raise ConfigurationError(f"{parameter} must be {kind}, not {_what_it_is(value)}", parameter=parameter)
    return value


def shows(value: P, *fields: str, parameter: str, kind: str) -> P:
    """Return an object with the attributes of a protocol; see ``offers``."""
    if isinstance(value, type) or not all(hasattr(value, field) for field in fields):
        raise ConfigurationError(f"{parameter} must be {kind}, not {_what_it_is(value)}", parameter=parameter)
    return value


def _what_it_is(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def text_of(value: object, *, parameter: str, empty: bool = True) -> str:
    """Return a string.

    Args:
        value: value to check.
        parameter: name of the parameter.
        empty: whether it may be empty.
    """
    if not isinstance(value, str) or not (value or empty):
        raise _refused(parameter, "a string" if empty else "a string that is not empty", value)
    return value


def strings(value: Iterable[str], *, parameter: str, of: str = "texts") -> tuple[str, ...]:
    """Return several strings; a single ``str`` is rejected, since its characters would be taken as the items.

    Args:
        value: value to check.
        parameter: name of the parameter.
        of: kind of the items, for the message (``hosts``, ``paths``).
    """
    whole: object = value
    if not isinstance(whole, Iterable):
        raise _refused(parameter, f"a list of {of}", whole)
    if isinstance(whole, (str, bytes, Mapping)):
        raise _refused(parameter, f"a list of {of}", cast(object, whole))
    items = tuple(value)
    for item in items:
        if not isinstance(item, str):
            raise ConfigurationError(
                f"{parameter} must be a list of {of}; one of them is {type(item).__name__}",
                parameter=parameter,
            )
    return items


def instances(value: Iterable[T], kind: type[T], *, parameter: str) -> tuple[T, ...]:
    """Return several instances of a class."""
    whole: object = value
    if not isinstance(whole, Iterable) or isinstance(whole, (str, bytes, Mapping)):
        raise _refused(parameter, f"a list of {kind.__name__}", value)
    return tuple(instance(item, kind, parameter=parameter) for item in value)


def path_text(value: object, *, parameter: str) -> str:
    """Return the path of a file or folder as a string that the file system can encode."""
    given, text = value, value
    if isinstance(given, os.PathLike):
        text = os.fspath(cast("os.PathLike[str]", given))
    if not isinstance(text, str) or not text or "\0" in text:
        raise _refused(parameter, "the path of a file or folder", value)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise _refused(parameter, "a path that the file system can represent", value) from None
    return text


def namespace_of(value: object, *, parameter: str = "namespace") -> str:
    """Return a key prefix for a shared store: 1 to 64 of ``A-Za-z0-9_.:-``, starting with a letter or digit."""
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise _refused(
            parameter, "1 to 64 characters of A-Za-z0-9_.:-, beginning with a letter or digit", value
        )
    return value


def level_number(value: object, *, parameter: str = "level") -> int:
    """Return the number of a ``logging`` level, given by name in any case or by number."""
    if isinstance(value, str):
        import logging  # whoever passes a level uses it; settings and commands do not need it

        known = logging.getLevelNamesMapping()
        found = known.get(value.strip().upper())
        if found is None:
            raise ConfigurationError(
                f"{parameter} must be the name of a level ({', '.join(known)}) or its number, not {value[:40]!r}",
                parameter=parameter,
            )
        return found
    return whole_number(value, parameter=parameter, minimum=0)


def _bounds(minimum: float, maximum: float | None) -> str:
    return f"of at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"


def _refused(parameter: str, allowed: str, value: object) -> ConfigurationError:
    return ConfigurationError(
        f"{parameter} must be {allowed}, not {type(value).__name__}"
        if not isinstance(value, (int, float, str)) or isinstance(value, bool)
        else f"{parameter} must be {allowed}",
        parameter=parameter,
    )

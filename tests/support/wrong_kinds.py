"""Values of wrong types, passed for each parameter of a public object in turn."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from mks_hardening.exceptions import ConfigurationError

__all__ = ["WRONG", "Nothing", "called", "faults_of"]


class Nothing:
    """Has no method or attribute that any parameter requires."""


WRONG: dict[str, object] = {
    "object": Nothing(),
    "class": Nothing,
    "None": None,
    "int": 5,
    "below": -1,
    "float": 1.5,
    "not a number": float("nan"),
    "text": "x",
    "4 bytes a letter": "\N{GRINNING FACE}" * 3,
    "surrogate": "\ud800",
    "huge": "9" * 100_000,
    "bytes": b"x",
    "list": [],
    "list of int": [5],
    "dict": {},
    "dict of objects": {"a": Nothing()},
    "bool": True,
    "function": lambda *args, **options: None,
}


def faults_of(
    found: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    taken: Collection[str] = (),
    others: Mapping[str, tuple[type[Exception], ...]] = {},
) -> Iterator[str]:
    """Check that each parameter rejects useless objects by name, and that no other error occurs.

    Args:
        found: the class or function.
        arguments: with which it can be called.
        taken: parameters that take any object.
        others: errors by parameter that are no ``ConfigurationError``, as documented.
    """
    for name in _names(found, arguments):
        for kind, value in WRONG.items():
            try:
                called(found, {**arguments, name: value})
            except ConfigurationError as refused:
                result = refused.parameter or "nothing"
                # Of several the one at fault; ``csrf_exempt_paths`` are ``exempt_paths`` to who refuses them.
                if kind == "object" and not (name.startswith(result) or name.endswith(result)):
                    yield f"{name}: {kind} is told of as {refused.parameter}"
            except others.get(name, ()):
                pass
            except Exception as error:  # noqa: BLE001 - that there is none is what is shown
                yield f"{name}: {kind} is {error!r:.110}"
            else:
                if kind == "object" and name not in taken:
                    yield f"{name}: {kind} is taken"


def _names(found: Callable[..., Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """Return the parameter names, including those of a TypedDict for ``**options``."""
    for parameter in inspect.signature(found).parameters.values():
        options = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
        if options is not None:
            function: Any = found
            function = function.__init__ if isinstance(found, type) else function
            yield from function.__globals__[options[1]].__annotations__
        elif parameter.name in arguments or parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            yield parameter.name


def called(found: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call it with keyword arguments, except for positional-only parameters."""
    parameters = inspect.signature(found).parameters.values()
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    leading = [arguments[one.name] for one in parameters if one.kind in by_place and one.name in arguments]
    rest = {*_names(found, arguments)} - {one.name for one in parameters if one.kind in by_place}
    return found(*leading, **{name: value for name, value in arguments.items() if name in rest})

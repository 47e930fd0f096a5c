"""Every error: one root that is never raised itself, facts as attributes, survives pickle and copy."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import sys
from dataclasses import is_dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from mks_hardening.exceptions import BackendUnavailableError, MissingDependencyError, MksHardeningError
from testbed import package_map


class _Decision(NamedTuple):
    """Data that an error carries; at the top level, so that pickle finds it."""

    allowed: bool = False
    retry_after: float | None = 2.0


SAMPLES: dict[str, Any] = {
    "LimitDecision": _Decision(),
    "str": "text",
    "str | None": "text",
    "int": 3,
    "int | None": 3,
    "float": 1.5,
    "float | None": 1.5,
    "float | timedelta | None": 1.5,
    "bool": True,
    "object": "thing",
    "tuple[str, ...]": ("one", "two"),
    "tuple[tuple[int, str, float], ...]": ((7, "SELECT", 1.5),),
    "Sequence[str]": ("one", "two"),
    "Mapping[str, object]": {"key": 1},
}


@pytest.fixture(scope="module")
def error_classes() -> list[type[Exception]]:
    found = dict[str, type[Exception]]()
    for name in package_map.all_modules():
        if name.endswith("__main__"):
            continue
        for value in vars(import_module(name)).values():
            if (
                inspect.isclass(value)
                and issubclass(value, Exception)
                and value.__module__.startswith("mks_hardening")
                and not value.__module__.startswith(
                    "mks_hardening.contrib._"
                )  # for a framework, never raised to users
            ):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[key] for key in sorted(found)]


def _value(annotation: object, module: ModuleType) -> Any:
    """Some value of a type that is written in a signature."""
    text = str(getattr(annotation, "__forward_arg__", annotation))  # NamedTuple keeps references
    if text in SAMPLES:
        return SAMPLES[text]
    if several := re.fullmatch(r"tuple\[(\w+), \.\.\.\]", text):
        return (_value(several[1], module),)
    kind: Any = getattr(module, text, None)
    assert hasattr(kind, "_fields") or is_dataclass(kind), f"add a sample of {text}"
    return kind(**{name: _value(field, module) for name, field in inspect.get_annotations(kind).items()})


def _sample(error: type[Exception]) -> Exception:
    if not inspect.isfunction(error.__init__):  # an exception without a constructor of its own
        return error("text")
    module = sys.modules[error.__module__]
    positional, named = [], {}
    for parameter in inspect.signature(error).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = _value(parameter.annotation, module)
        else:
            positional.append(_value(parameter.annotation, module))
    return error(*positional, **named)


def test_errors_survive_pickle_and_copy(error_classes: list[type[Exception]]) -> None:
    for error in error_classes:
        original = _sample(error)
        for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):  # noqa: S301
            assert type(twin) is error
            assert str(twin) == str(original)
            assert twin.args == original.args
            assert vars(twin) == vars(original)


def test_errors_have_the_one_root_and_suffix(error_classes: list[type[Exception]]) -> None:
    public = [error for error in error_classes if not error.__name__.startswith("_")]
    warnings = [error for error in public if issubclass(error, Warning)]
    assert [error for error in warnings if not error.__name__.endswith("Warning")] == []
    errors = [error for error in public if error not in warnings]
    assert [
        error
        for error in errors
        if not (issubclass(error, MksHardeningError) and error.__name__.endswith("Error"))
    ] == []
    assert len(errors) > 5


def test_a_missing_dependency_says_what_to_type() -> None:
    error = MissingDependencyError("redis", "cache")
    assert isinstance(error, ImportError)
    assert (error.package, error.extra, error.name) == ("redis", "cache", "redis")
    assert "pip install 'mks-hardening[cache]'" in str(error)


def test_an_unavailable_backend_carries_its_facts() -> None:
    error = BackendUnavailableError("redis", "timeout", operation="get", sent=False, retry_after=1.0)
    assert str(error) == "redis is unavailable (timeout) during get"
    assert (error.sent, error.retry_after) == (False, 1.0)


def test_the_root_is_never_raised_itself() -> None:
    raised = [
        f"{file}:{node.lineno}"
        for file, tree in package_map.syntax_trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and getattr(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, "id", "")
        == "MksHardeningError"
    ]
    assert raised == []

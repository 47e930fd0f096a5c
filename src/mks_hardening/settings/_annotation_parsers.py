"""Parsers for the fields of an application's settings, chosen by the annotation of the field."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin

from mks_hardening._core.environment.parsers import (
    Parser,
    duration_text,
    parse_bool,
    parse_choice,
    parse_duration,
    parse_float,
    parse_integer,
    parse_list,
    parse_path,
    parse_size,
    parse_text,
    parse_url,
)
from mks_hardening.exceptions import ConfigurationError

__all__ = ["AnyParser", "Bound", "Kind", "custom_parser", "parser_of"]

AnyParser: TypeAlias = Parser[Any]
"""A parser whose type the annotation of a field decides."""
Bound: TypeAlias = float | timedelta
Kind: TypeAlias = Literal["duration", "size", "url"]

_TYPES: Final = (
    "bool, int, float, str, timedelta, Path, a Literal of texts, tuple[T, ...] or frozenset[T] of these, each "
    "perhaps with | None"
)
_LONGEST: Final = 100 * 365 * 86_400.0


def parser_of(
    annotation: object, *, kind: Kind | None, minimum: Bound | None, maximum: Bound | None, secret: bool
) -> AnyParser:
    """Return the parser for the type of a field; the items of a secret list are not quoted in errors.

    Raises:
        ConfigurationError: there is none, or the type has no such kind or bounds.
    """
    annotation = _without_none(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    collect = {tuple: tuple, frozenset: frozenset}.get(cast("Any", origin))
    if collect is frozenset or (collect is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        item = parser_of(arguments[0], kind=kind, minimum=minimum, maximum=maximum, secret=secret)
        return _list_parser(item, collect, secret=secret)
    if kind is not None:
        return _parser_of_kind(annotation, kind, minimum, maximum)
    if annotation is int:
        return parse_integer(_whole(minimum), _whole(maximum))
    if annotation is float:
        return parse_float(_number(minimum), _number(maximum))
    if annotation is timedelta:
        return _timedelta_parser(minimum, maximum)
    if minimum is not None or maximum is not None:
        raise ConfigurationError(
            "minimum and maximum must be given for int, float and timedelta only", parameter="minimum"
        )
    if origin is Literal and all(isinstance(choice, str) for choice in arguments):
        return parse_choice(*arguments)
    by_type: dict[object, AnyParser] = {
        bool: parse_bool,
        str: parse_text,
        Path: Parser(parse_path.form, lambda text: Path(parse_path(text))),
    }
    parser = by_type.get(annotation)
    if parser is None:
        raise ConfigurationError(
            f"the type {annotation!r} has no parser: use {_TYPES}, or give parse and form", parameter="parse"
        )
    return parser


def custom_parser(parse: Callable[[str], object], form: str, *, secret: bool) -> AnyParser:
    """Return a parser that uses an application's function; its error is hidden if the value is secret."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            details = "" if secret or not str(error) else f": {error}"
            raise ValueError(f"{form}{details}") from None

    def show(value: object) -> str:
        # Nobody has said how a value is written: a text that would be read differently is not shown.
        try:
            return str(value) if parse(str(value)) == value else ""
        except ValueError:
            return ""

    return Parser(form, read, show)


def _without_none(annotation: object) -> object:
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    others = [each for each in get_args(annotation) if each is not types.NoneType]
    return others[0] if len(others) == 1 else annotation


def _parser_of_kind(
    annotation: object, kind: Kind, minimum: Bound | None, maximum: Bound | None
) -> AnyParser:
    if kind == "size" and annotation is int:
        low, high = _whole(minimum), _whole(maximum)
        return parse_size(minimum=low or 0, maximum=1024**4 if high is None else high)
    if kind == "duration" and annotation is float:
        return _duration_parser(minimum, maximum)
    if kind == "url" and annotation is str and minimum is None and maximum is None:
        return parse_url("https", "http")
    raise ConfigurationError(
        f"kind {kind!r} has no parser here: size is for int, duration for float (seconds), url for str",
        parameter="kind",
    )


def _duration_parser(minimum: Bound | None, maximum: Bound | None) -> Parser[float]:
    low, high = _number(minimum), _number(maximum)
    return parse_duration(minimum=low or 0.0, maximum=_LONGEST if high is None else high)


def _timedelta_parser(minimum: Bound | None, maximum: Bound | None) -> Parser[timedelta]:
    parse = _duration_parser(minimum, maximum)
    return Parser(
        parse.form,
        lambda text: timedelta(seconds=parse(text)),
        lambda value: duration_text(value.total_seconds()),
    )


def _list_parser(
    item: AnyParser, collect: Callable[[Iterable[object]], Collection[object]], *, secret: bool
) -> AnyParser:
    def read(text: str) -> object:
        values: list[object] = []
        for place, each in enumerate(parse_list(text), 1):
            try:
                values.append(item(each))
            except ValueError as error:
                which = f"item {place}" if secret else f"{each[:60]!r}"
                raise ValueError(f"comma-separated items, each {error}; {which} is not") from None
        return collect(values)

    def show(values: Collection[object]) -> str:
        texts = [item.show(value) for value in values]
        return ",".join(texts if isinstance(values, tuple) else sorted(texts))

    return Parser(f"comma-separated list ({item.form})", read, show)


def _number(bound: Bound | None) -> float | None:
    if bound is None:
        return None
    if isinstance(bound, timedelta):
        return bound.total_seconds()
    if isinstance(cast("object", bound), (int, float)) and not isinstance(bound, bool):
        return bound
    raise ConfigurationError(f"minimum and maximum must be numbers, not {bound!r}", parameter="minimum")


def _whole(bound: Bound | None) -> int | None:
    number = _number(bound)
    if number is None or isinstance(number, int):
        return number
    raise ConfigurationError(
        f"minimum and maximum of an int must be whole numbers, not {bound!r}", parameter="minimum"
    )

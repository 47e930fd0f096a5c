"""Strict parsers for values in environment variables; each can describe its accepted form.

A parser returns a value or raises ``ValueError`` whose text completes "... must be". Its ``form`` is shown in the
table of variables. The given text never appears in a message: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

__all__ = [
    "Parser",
    "duration_text",
    "parse_bool",
    "parse_choice",
    "parse_duration",
    "parse_float",
    "parse_integer",
    "parse_list",
    "parse_path",
    "parse_size",
    "parse_text",
    "parse_url",
]

T = TypeVar("T")
S = TypeVar("S", bound=str)

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZES: Final = {
    "b": 1,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
}
_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)[ ]?([A-Za-z]*)", re.ASCII)
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII)
_YEAR: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Parser(Generic[T]):
    """Parser for one form of text.

    Attributes:
        form: short description of the form.
        read: converts text to a value.
        show: converts a value to a text that ``read`` converts back.
    """

    form: str
    read: Callable[[str], T]
    show: Callable[[T], str] = str

    def __call__(self, text: str) -> T:
        return self.read(text)


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("text that is not empty")
    return text


parse_text: Final = Parser("text", _text)
parse_path: Final = Parser("path", _text)


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("1/0, true/false, yes/no or on/off")


parse_bool: Final = Parser("boolean", _bool, lambda value: str(int(value)))


def _list(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(","))
    if items == ("",):
        return ()
    if "" in items:
        raise ValueError("comma-separated items, none of them empty")
    return items


parse_list: Final = Parser("comma-separated list", _list, ",".join)


def parse_integer(minimum: int | None = None, maximum: int | None = None) -> Parser[int]:
    """Return a parser for an integer of at most 18 ASCII digits within the bounds."""
    span = _span(minimum, maximum)

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text.strip()) or not _is_within(int(text), minimum, maximum):
            raise ValueError(f"a whole number{span and ' '}{span}")
        return int(text)

    return Parser(f"whole number{span and ', '}{span.removeprefix('from ')}", read)


def parse_float(minimum: float | None = None, maximum: float | None = None) -> Parser[float]:
    """Return a parser for a decimal number in ASCII digits within the bounds."""
    span = _span(minimum, maximum)

    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text.strip()) or not _is_within(float(text), minimum, maximum):
            raise ValueError(f"a number{span and ' '}{span}")
        return float(text)

    return Parser(f"number{span and ', '}{span.removeprefix('from ')}", read, "{:g}".format)


def _span(minimum: float | None, maximum: float | None) -> str:
    """Describe bounds: ``from 1 to 9``, ``at least 1``, ``at most 9``, or an empty text."""
    low, high = (
        "" if bound is None else str(bound) if isinstance(bound, int) else f"{bound:g}"
        for bound in (minimum, maximum)
    )
    if low and high:
        return f"from {low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def _is_within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def duration_text(value: float) -> str:
    """Return a duration in the largest unit that gives a whole number: ``730d``, ``90s``, ``250ms``."""
    for unit in ("d", "h", "m", "s", "ms"):
        amount = value / _UNITS[unit]
        if amount >= 1 and abs(amount - round(amount)) < 1e-9:
            return f"{round(amount)}{unit}"
    return f"{value:g}s"


def parse_duration(*, minimum: float = 0.0, maximum: float = _YEAR, bare: str | None = None) -> Parser[float]:
    """Return a parser for a number with a unit (``250ms``, ``30s``, ``15m``, ``8h``, ``7d``), as seconds.

    Args:
        minimum: smallest accepted value in seconds.
        maximum: largest accepted value in seconds.
        bare: unit of a number without one, for variables of older deployments; by default a unit is required.
    """
    span = f"{duration_text(minimum)} to {duration_text(maximum)}"
    note = "" if bare is None else f" (a bare number counts as {bare})"

    def read(text: str) -> float:
        match = _AMOUNT.fullmatch(text.strip())
        unit = _UNITS.get((match.group(2).lower() or bare or "") if match else "")
        if match is None or unit is None or not minimum <= float(match.group(1)) * unit <= maximum:
            raise ValueError(f"a duration such as 250ms, 30s, 15m, 8h or 7d, from {span}{note}")
        return float(match.group(1)) * unit

    return Parser(f"duration, {span}{note}", read, duration_text)


def parse_size(*, minimum: int = 0, maximum: int = 1024**4) -> Parser[int]:
    """Return a parser for a number of bytes, plain or with a unit (``64KiB``, ``100MB``)."""

    def read(text: str) -> int:
        match = _AMOUNT.fullmatch(text.strip())
        unit = _SIZES.get(match.group(2).lower() or "b") if match else None
        if match is None or unit is None or not minimum <= float(match.group(1)) * unit <= maximum:
            raise ValueError(f"a size in bytes such as 65536, 64KiB or 100MB, from {minimum} to {maximum}")
        return int(float(match.group(1)) * unit)

    return Parser(f"size in bytes, at least {minimum}", read)


def parse_choice(*choices: S) -> Parser[S]:
    """Return a parser for one of several words, in any case."""
    by_word = {choice.lower(): choice for choice in choices}

    def read(text: str) -> S:
        choice = by_word.get(text.strip().lower())
        if choice is None:
            raise ValueError(f"one of {', '.join(choices)}")
        return choice

    return Parser(", ".join(choices[:-1]) + f" or {choices[-1]}", read)


def parse_url(*schemes: str) -> Parser[str]:
    """Return a parser for an absolute URL with one of the schemes."""

    def read(text: str) -> str:
        url = text.strip()
        try:
            parts = urlsplit(url)
            usable = parts.scheme in schemes and bool(parts.netloc or parts.path) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not url.isprintable():
            raise ValueError(f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url

    return Parser("URL", read)

"""Strict reading of environment variables; the one place that looks at ``os.environ``.

A parser takes text and returns a value or raises ``ValueError`` with the accepted forms. ``Environment`` applies
parsers to variables and collects every fault, so that all are reported at once. Values never enter a message: they
may be secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

__all__ = [
    "Environment",
    "parse_bool",
    "parse_choice",
    "parse_duration",
    "parse_float",
    "parse_integer",
    "parse_list",
    "parse_size",
    "parse_text",
    "parse_url",
]

T = TypeVar("T")

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
_MAX_FILE: Final = 65_536


def parse_text(text: str) -> str:
    """Text that is not empty."""
    if not text.strip():
        raise ValueError("text that is not empty")
    return text


def parse_bool(text: str) -> bool:
    """``1/0``, ``true/false``, ``yes/no``, ``on/off`` in any case; nothing else."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("1/0, true/false, yes/no or on/off")


def parse_integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number in ASCII digits within the bounds."""
    forms = f"a whole number from {minimum} to {maximum}"

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text.strip()) or not minimum <= int(text) <= maximum:
            raise ValueError(forms)
        return int(text)

    return parse


def parse_float(minimum: float, maximum: float) -> Callable[[str], float]:
    """A decimal number in ASCII digits within the bounds."""
    forms = f"a number from {minimum:g} to {maximum:g}"

    def parse(text: str) -> float:
        if not _NUMBER.fullmatch(text.strip()) or not minimum <= float(text) <= maximum:
            raise ValueError(forms)
        return float(text)

    return parse


def parse_duration(
    *, minimum: float = 0.0, maximum: float = 366 * 86_400.0, bare: str | None = None
) -> Callable[[str], float]:
    """A number with a unit (``250ms``, ``30s``, ``15m``, ``8h``, ``7d``), as seconds.

    Args:
        minimum: smallest accepted value in seconds.
        maximum: largest accepted value in seconds.
        bare: unit of a number without one, for variables that older deployments have; refused otherwise.
    """
    forms = f"a duration such as 250ms, 30s, 15m, 8h or 7d, from {minimum:g}s to {maximum:g}s"
    if bare is not None:
        forms += f" (a bare number counts as {bare})"

    def parse(text: str) -> float:
        match = _AMOUNT.fullmatch(text.strip())
        unit = _UNITS.get((match.group(2).lower() or bare or "") if match else "")
        if match is None or unit is None or not minimum <= float(match.group(1)) * unit <= maximum:
            raise ValueError(forms)
        return float(match.group(1)) * unit

    return parse


def parse_size(*, minimum: int = 0, maximum: int = 1024**4) -> Callable[[str], int]:
    """A number of bytes, plain or with a unit (``64KiB``, ``100MB``)."""
    forms = f"a size in bytes such as 65536, 64KiB or 100MB, from {minimum} to {maximum}"

    def parse(text: str) -> int:
        match = _AMOUNT.fullmatch(text.strip())
        unit = _SIZES.get(match.group(2).lower() or "b") if match else None
        if match is None or unit is None or not minimum <= float(match.group(1)) * unit <= maximum:
            raise ValueError(forms)
        return int(float(match.group(1)) * unit)

    return parse


def parse_list(text: str) -> tuple[str, ...]:
    """Items between commas, without the blanks around them; an empty variable is an empty list."""
    items = tuple(item.strip() for item in text.split(","))
    if items == ("",):
        return ()
    if "" in items:
        raise ValueError("items between commas, none of them empty")
    return items


def parse_choice(*choices: str) -> Callable[[str], str]:
    """One of a few words, in any case."""
    by_word = {choice.lower(): choice for choice in choices}

    def parse(text: str) -> str:
        choice = by_word.get(text.strip().lower())
        if choice is None:
            raise ValueError(f"one of {', '.join(choices)}")
        return choice

    return parse


def parse_url(*schemes: str) -> Callable[[str], str]:
    """An absolute URL with one of the schemes."""
    forms = f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"

    def parse(text: str) -> str:
        url = text.strip()
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(forms) from None
        if parts.scheme not in schemes or not (parts.netloc or parts.path) or not url.isprintable():
            raise ValueError(forms)
        return url

    return parse


class Environment:
    """Variables and what is wrong with them.

    Args:
        variables: instead of the process's environment.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables: Mapping[str, str] = os.environ if variables is None else variables
        self.faults: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], *, file: bool = False) -> T | None:
        """The parsed value of a variable; ``None`` when it is not set, or faulty (then a fault is noted).

        Args:
            name: name of the variable.
            parse: one of the parsers.
            file: whether ``NAME_FILE`` may name a file that holds the value instead.
        """
        text = self._text(name, file=file)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(f"{name} must be {error}")
            return None

    def names(self, prefix: str) -> list[str]:
        """The variables that begin with ``prefix``."""
        return sorted(name for name in self._variables if name.startswith(prefix))

    def _text(self, name: str, *, file: bool) -> str | None:
        text = self._variables.get(name)
        path = self._variables.get(f"{name}_FILE") if file else None
        if path is None:
            return text
        if text is not None:
            self.faults.append(f"{name} and {name}_FILE are both set; keep one")
            return None
        return self._file(f"{name}_FILE", Path(path))

    def _file(self, name: str, path: Path) -> str | None:
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_FILE + 1)
            text = data.decode("utf-8")
        except (OSError, ValueError) as error:
            self.faults.append(f"{name} must name a readable UTF-8 file ({type(error).__name__})")
            return None
        if len(data) > _MAX_FILE:
            self.faults.append(f"{name} must name a file of at most {_MAX_FILE} bytes")
            return None
        return text.removesuffix("\n").removesuffix("\r")

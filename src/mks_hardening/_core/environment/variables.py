"""Strict reading of environment variables; the only module that reads ``os.environ``.

``Environment`` applies parsers to variables and collects every error, so that all are reported at once. Values
never appear in a message: they may be secrets. An empty or blank variable counts as not set: unit and compose files
contain such variables if a value is omitted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

__all__ = ["Environment"]

T = TypeVar("T")

_MAX_FILE: Final = 65_536


class Environment:
    """Environment variables, and the errors found in them.

    Args:
        variables: mapping to use instead of the process's environment.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables: Mapping[str, str] = os.environ if variables is None else variables
        self.errors: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], *, file: bool = False) -> T | None:
        """Return the parsed value of a variable; ``None`` if it is not set or invalid (the error is recorded).

        Args:
            name: name of the variable.
            parse: a parser.
            file: whether ``NAME_FILE`` may name a file that contains the value instead.
        """
        text = self._text(name, file=file)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.errors.append(f"{name} must be {error}")
            return None

    @property
    def variables(self) -> Mapping[str, str]:
        """All variables as they are, for what judges the whole environment."""
        return self._variables

    def names(self, prefix: str) -> list[str]:
        """Return the names of the variables that start with ``prefix``."""
        names: Iterable[object] = self._variables
        return sorted(name for name in names if isinstance(name, str) and name.startswith(prefix))

    def _text(self, name: str, *, file: bool) -> str | None:
        text = self._given(name)
        path = self._given(f"{name}_FILE") if file else None
        if path is None:
            return text
        if text is not None:
            self.errors.append(f"{name} and {name}_FILE are both set; keep one")
            return None
        return self._file(f"{name}_FILE", Path(path))

    def _given(self, name: str) -> str | None:
        text: object = self._variables.get(name)
        if text is None or isinstance(text, str):
            return text if text and text.strip() else None
        self.errors.append(f"{name} must be text, not {type(text).__name__}")
        return None

    def _file(self, name: str, path: Path) -> str | None:
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_FILE + 1)
            text = data.decode("utf-8-sig")  # some editors add a byte order mark
        except (OSError, ValueError) as error:
            self.errors.append(f"{name} must be the path of a readable UTF-8 file ({type(error).__name__})")
            return None
        if len(data) > _MAX_FILE:
            self.errors.append(f"{name} must be the path of a file of at most {_MAX_FILE} bytes")
            return None
        if not text.strip():
            self.errors.append(f"{name} must be the path of a file that is not empty")
            return None
        return text.rstrip("\r\n")

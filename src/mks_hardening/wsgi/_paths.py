"""Lists of paths as users write them: exact, or a whole folder when they end in a slash."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mks_hardening.exceptions import ConfigurationError

__all__ = ["PathRules", "exemptions", "is_plain_path"]

_AMBIGUOUS: Final = re.compile(r"[\x00-\x1f\x7f\\]|//|/\.\.?(?:/|\Z)").search


class PathRules:
    """Matches a request path against exact paths and folders.

    A path that servers and applications may read in two ways (empty or dot segments, backslashes, control
    characters) matches nothing, so it cannot borrow an exemption.

    Args:
        paths: each begins with a slash; one that ends in a slash means everything below it.
        parameter: name of the option, for error messages.

    Raises:
        ConfigurationError: a path without leading slash, or one that is itself ambiguous.
    """

    __slots__ = ("_exact", "_folders")

    def __init__(self, paths: Iterable[str], *, parameter: str) -> None:
        if isinstance(paths, str):
            raise ConfigurationError(f"{parameter} must be a list of paths, not one str", parameter=parameter)
        listed = tuple(paths)
        for path in listed:
            if not isinstance(path, str) or not path.startswith("/") or not is_plain_path(path):
                raise ConfigurationError(
                    f"{parameter}: each path must begin with '/' and have no empty or dot segments",
                    parameter=parameter,
                )
        # PATH_INFO holds the UTF-8 bytes as Latin-1 (PEP 3333).
        encoded = [path.encode().decode("latin-1") for path in listed]
        self._exact = frozenset(encoded)
        self._folders = tuple(path for path in encoded if path.endswith("/"))

    def match(self, path: str) -> bool:
        """Whether the path is listed."""
        return self._lists(path) and is_plain_path(path)

    def covers(self, path: str) -> bool:
        """Whether the path, in any spelling that some reader takes for a listed one, is listed.

        For rules that restrict: a spelling that only looks different must not escape them.
        """
        plain = path if is_plain_path(path) else _plain(path)
        return self._lists(plain) or self._lists(plain.removesuffix("/")) or self._lists(plain + "/")

    def _lists(self, path: str) -> bool:
        return path in self._exact or path.startswith(self._folders)


def exemptions(paths: Iterable[str], *, parameter: str) -> PathRules:
    """Paths to which a protection does not apply.

    Raises:
        ConfigurationError: as ``PathRules``, or ``/``, which would switch the protection off.
    """
    rules = PathRules(paths, parameter=parameter)
    if rules.match("/"):
        raise ConfigurationError(f"{parameter}: '/' would exempt every path", parameter=parameter)
    return rules


def _plain(path: str) -> str:
    segments: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def is_plain_path(path: str) -> bool:
    """Whether every reader takes the path for the same one."""
    return _AMBIGUOUS(path) is None

"""Path rules in options: single pages, and folders with everything below."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar
from urllib.parse import unquote

from mks_hardening._core.checks import strings
from mks_hardening.exceptions import ConfigurationError

__all__ = ["LIVEZ", "READYZ", "PathRules", "exemptions", "is_plain_path", "paths_of_rule", "values_of_path"]

Value = TypeVar("Value")

LIVEZ: Final = "/livez"
READYZ: Final = "/readyz"
"""Default paths of health probes: handled by the health middleware, never redirected to https."""

_AMBIGUOUS: Final = re.compile(r"[\x00-\x1f\x7f\\]|/[/;]|/\.\.?(?:[/;]|\Z)").search
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")
# The absolute form of a target (RFC 9112, 3.2.2), which some servers pass on.
_ORIGIN: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
# Decoded characters may be any, but nobody means "?" (%3F), "#" (%23) or an escape (%2541) of a request by these.
_NEVER_IN_A_PATH: Final = re.compile(r"[?#]|%[0-9A-Fa-f]{2}").search
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}").search


class PathRules:
    """Matches a request path against pages and folders, with one notation for all options with paths.

    ``/login`` is that page; ``/static/`` or ``/static/*`` is the folder with everything below it, so that ``/`` is
    everything; ``=/news/`` is that page alone although it ends in a slash, and ``=/`` the front page.

    A path that servers and applications may interpret differently (empty or dot segments, also with parameters as
    in ``/..;/``, backslashes, control characters, escapes that are left after decoding) matches nothing, so it
    cannot gain an exemption.

    Args:
        paths: pages and folders.
        parameter: name of the option, for error messages.

    Raises:
        ConfigurationError: a path has no leading slash, is itself ambiguous, or contains a query, a fragment or an
            escape such as ``%2F``.
    """

    __slots__ = ("_folders", "_pages")

    def __init__(self, paths: Iterable[str], *, parameter: str) -> None:
        pages: set[str] = set()
        folders: list[str] = []
        for path in strings(paths, parameter=parameter, of="paths"):
            plain = path.removeprefix("=") if path.startswith("=") else _without_star(path)
            if not plain.startswith("/") or "*" in plain or not is_plain_path(plain):
                raise ConfigurationError(
                    f"{parameter}: each path must begin with '/' and have no empty or dot segments; '/static/' "
                    "matches everything below, '=/news/' that page only",
                    parameter=parameter,
                )
            if found := _NEVER_IN_A_PATH(plain):
                raise ConfigurationError(
                    f"{parameter}: {path!r} would match no request: paths are compared decoded and without the "
                    f"query; omit what begins with {found.group()[0]!r}, or write the character itself",
                    parameter=parameter,
                )
            # PATH_INFO holds the UTF-8 bytes as Latin-1 (PEP 3333).
            encoded = plain.encode().decode("latin-1")
            if plain.endswith("/") and not path.startswith("="):
                folders.append(encoded)
            else:
                pages.add(encoded)
        self._pages = frozenset(pages)
        self._folders = tuple(folders)

    def match(self, path: str) -> bool:
        """Return whether the path is listed, as it is.

        For rules that loosen: the application routes by this spelling only.
        """
        return self._lists(path) and is_plain_path(path) and ("%" not in path or _ENCODED(path) is None)

    def covers(self, path: str) -> bool:
        """Return whether the path is listed, in any spelling that could be interpreted as a listed path.

        For rules that restrict: a different spelling must not bypass them.
        """
        # Decoded a second time too, as by a careless application.
        return self._lists(path) or any(
            self._lists(plain) or self._lists(plain.removesuffix("/")) or self._lists(plain + "/")
            for plain in map(_plain, (path, unquote(path, "latin-1")) if "%" in path else (path,))
        )

    def _lists(self, path: str) -> bool:
        return path in self._pages or path.startswith(self._folders)


def exemptions(paths: Iterable[str], *, parameter: str) -> PathRules:
    """Return rules for paths to which a protection does not apply.

    Raises:
        ConfigurationError: as for ``PathRules``, or ``/``, which would disable the protection.
    """
    listed = strings(paths, parameter=parameter, of="paths")
    if "/" in map(_without_star, listed):
        raise ConfigurationError(
            f"{parameter}: '/' would exempt every path; write '=/' for the home page only",
            parameter=parameter,
        )
    return PathRules(listed, parameter=parameter)


def paths_of_rule(path: str | Iterable[str], *, parameter: str = "path") -> PathRules:
    """Return the paths of a rule, given as one path or several.

    Raises:
        ConfigurationError: as for ``PathRules``, or there is no path, so that the rule would never apply.
    """
    listed = (path,) if isinstance(path, str) else strings(path, parameter=parameter, of="paths")
    if not listed:
        raise ConfigurationError(
            f"{parameter} must contain at least one path; without one the rule would never apply",
            parameter=parameter,
        )
    return PathRules(listed, parameter=parameter)


def values_of_path(path: str, rules: Iterable[tuple[PathRules, Value]], everywhere: Value) -> list[Value]:
    """Return the values of rules for a path: one, or several of which the strictest applies.

    The first is that of the first rule that lists the path as it is, or ``everywhere``. The others are those of
    rules that list another spelling of the path: they restrict what an application or proxy takes it for, and
    cannot loosen anything.

    Args:
        path: path of the request.
        rules: the rules, in order.
        everywhere: value for paths that no rule lists.
    """
    listed = [(paths.match(path), value) for paths, value in rules if paths.covers(path)]
    first = next((value for is_exact, value in listed if is_exact), everywhere)
    return [first, *(value for is_exact, value in listed if not is_exact)]


def _without_star(path: str) -> str:
    return path[:-1] if path.endswith("/*") else path


def _plain(path: str) -> str:
    if path.startswith("/") and is_plain_path(path):
        return path
    # Patterns that end in "$" also match before a newline, as those of Starlette do.
    plain = "/" + _ORIGIN.sub("", _CONTROLS.sub("", path)).replace("\\", "/")
    # In halves, so that the longest path takes few passes: most segments mean nothing or are usual ones.
    for empty in ("//", "/./"):
        while empty in plain:
            plain = plain.replace(empty, "/")
    if plain.startswith((".", ";")) or "/." in plain or "/;" in plain:
        segments: list[str] = []
        for segment in plain.split("/"):
            step = segment.partition(";")[0] if segment.startswith((".", ";")) else segment
            if step == "..":
                del segments[-1:]
            elif step not in ("", "."):
                segments.append(segment)
        plain = "/".join(segments)
    return "/" + plain.strip("/")


def is_plain_path(path: str) -> bool:
    """Return whether all servers and applications interpret the path in the same way."""
    return _AMBIGUOUS(path) is None

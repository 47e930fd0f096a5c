"""Reading of environment variables, from the process or from a file such as systemd's ``EnvironmentFile``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from mks_check.production_check.facts import SettingFacts
from mks_hardening._core.environment.variables import Environment
from mks_hardening.settings import HardeningSettings, variables
from mks_hardening.settings.hardening import read_hardening
from mks_hardening.settings.variable_table import unknown_variables

__all__ = ["parse_env_file", "setting_facts"]

_LINE: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_LIKE: Final = 0.85  # applications may have variables of their own with our prefix


def setting_facts(
    environ: Mapping[str, str], *, file: str = "", lines: Mapping[str, int] | None = None
) -> SettingFacts:
    """Return the facts of environment variables.

    Args:
        environ: variables; values that are not ``str`` are reported as invalid settings.
        file: file that they are from.
        lines: line of each variable.
    """
    source = Environment(environ)
    hardening = read_hardening(HardeningSettings, source, "MKS_")
    table = variables()
    names = [variable.name for variable in table]
    strange = [
        name for name in source.names("MKS_") if difflib.get_close_matches(name, names, n=1, cutoff=_LIKE)
    ]
    given: Mapping[str, object] = environ
    texts = {name: value for name, value in given.items() if isinstance(value, str) and value.strip()}
    return SettingFacts(
        variables=texts,
        hardening=hardening,
        file=file,
        lines=lines or {},
        errors=tuple(source.errors),
        unknown=tuple(unknown_variables(strange, table)),
    )


def parse_env_file(text: str) -> tuple[dict[str, str], dict[str, int], tuple[int, ...]]:
    """Return variables, their lines, and the lines that could not be read.

    The syntax is that of systemd and of most ``.env`` readers: ``NAME=value``, comments, optional quotes.
    """
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    unread: list[int] = []
    for number, line in _logical_lines(text):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            unread.append(number)
            continue
        found[match[1]] = _unquoted(match[2].strip())
        lines[match[1]] = number
    return found, lines, tuple(unread)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    begun, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        start = start or number
        begun += line.removesuffix("\r")
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        yield start, begun
        begun, start = "", 0
    if begun:
        yield start, begun


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] in "\"'" and text[-1] == text[0]:
        return text[1:-1]
    return text

"""Waivers in comments of a migration: ``mks: allow MG301 the table has 20 rows``."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mks_check.migrations._sql_script import SqlComment

__all__ = [
    "ContractMark",
    "MigrationWaiver",
    "comments_of_python",
    "read_contracts",
    "read_waivers",
    "release_of",
]

_MARK: Final = re.compile(r"\bmks:\s*allow\b\s*(?P<rest>[^\n]*)")
_CONTRACT_MARK: Final = re.compile(r"\bmks:\s*contract\b\s*(?P<rest>[^\n]*)")
_CONTRACT: Final = re.compile(r"(?P<release>\d+(?:\.\d+)*)[\s:,-]+(?P<reason>\S.*)")
_RELEASE: Final = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,9}")
_WAIVER: Final = re.compile(r"(?P<rule>MG\d{3})(?:\((?P<subject>[^)]*)\))?[\s:,-]*(?P<reason>.*)")


@dataclass(frozen=True, slots=True)
class MigrationWaiver:
    """Accepts one rule in one migration.

    Attributes:
        rule_id: the rule; empty if the waiver cannot be read.
        subject: table or ``table.column`` that it is limited to; empty for the whole migration.
        reason: why the operation is safe; empty if the waiver is invalid.
        line: line of the comment.
    """

    rule_id: str
    subject: str
    reason: str
    line: int


@dataclass(frozen=True, slots=True)
class ContractMark:
    """States since which release nothing uses what a migration removes (expand and contract).

    Attributes:
        release: that release; empty if the mark is invalid.
        reason: what was removed from the application.
        line: line of the comment.
    """

    release: tuple[int, ...]
    reason: str
    line: int


def release_of(text: str) -> tuple[int, ...] | None:
    """Return a release as numbers without trailing zeros; ``None`` if it is not made of numbers and dots."""
    if _RELEASE.fullmatch(text) is None:
        return None
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def read_contracts(comments: Iterable[SqlComment]) -> list[ContractMark]:
    """Return the contract marks in some comments; invalid ones have no release."""
    found: list[ContractMark] = []
    for comment in comments:
        for mark in _CONTRACT_MARK.finditer(comment.text):
            line = comment.line + comment.text.count("\n", 0, mark.start())
            contract = _CONTRACT.fullmatch(mark["rest"].removesuffix("*/").strip())
            release = release_of(contract["release"]) if contract else None
            found.append(ContractMark(release or (), contract["reason"] if contract else "", line))
    return found


def read_waivers(comments: Iterable[SqlComment]) -> list[MigrationWaiver]:
    """Return the waivers in some comments; invalid ones have no reason."""
    found: list[MigrationWaiver] = []
    for comment in comments:
        for mark in _MARK.finditer(comment.text):
            line = comment.line + comment.text.count("\n", 0, mark.start())
            waiver = _WAIVER.fullmatch(mark["rest"].removesuffix("*/").strip())
            if waiver is None:
                found.append(MigrationWaiver("", "", "", line))
            else:
                subject = (waiver["subject"] or "").strip()
                found.append(MigrationWaiver(waiver["rule"], subject, waiver["reason"].strip(), line))
    return found


def comments_of_python(source: str) -> list[tuple[int, str]]:
    """Return line and text of each comment of a Python file."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    try:
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return []

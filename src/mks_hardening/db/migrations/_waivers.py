"""Waivers in comments of a migration: ``mks: allow MG301 the table has 20 rows``."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mks_hardening.db.migrations._sql_script import SqlComment

__all__ = ["MigrationWaiver", "comments_of_python", "read_waivers"]

_MARK: Final = re.compile(r"\bmks:\s*allow\b\s*(?P<rest>[^\n]*)")
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

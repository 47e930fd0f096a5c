"""``Finding``: one problem, with what shows it and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LEVELS", "Evidence", "Finding", "Level"]

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""All levels, the most severe one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a check has seen.

    Attributes:
        text: the value or place that shows the problem; it is redacted before anyone reads it.
        key: stable name of what is affected, such as a variable or a directive, for the fingerprint.
        file: path of the file, as it was given; empty if it is not a file.
        line: line in that file, from 1.
        level: level of this finding, if it is not that of the check.
    """

    text: str
    key: str = ""
    file: str = ""
    line: int = 0
    level: Level | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem.

    Attributes:
        id: id of the check, stable between releases (``MKS-SET-006``).
        level: ``error``, ``warning`` or ``note``.
        title: the problem in one sentence.
        evidence: what shows it, without secrets.
        fix: what to do.
        link: page of a standard or manual.
        key: stable name of what is affected, such as a variable.
        file: path of the affected file; empty if there is none.
        line: line in that file, from 1; 0 if there is none.
        reason: why it is accepted; empty if it is not.
    """

    id: str
    level: Level
    title: str
    evidence: str
    fix: str
    link: str
    key: str = ""
    file: str = ""
    line: int = 0
    reason: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of the check, the file and the key; it stays when lines are moved."""
        from hashlib import sha256

        return sha256(f"{self.id}\x00{self.file}\x00{self.key}".encode("utf-8", "replace")).hexdigest()[:32]

"""A report as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["DatabaseReport", "Row", "Section", "in_short"]

Row: TypeAlias = "Mapping[str, object]"

_LONGEST_CELL: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of a report.

    Attributes:
        title: what the rows are.
        rows: the rows, whose first one names the columns.
        advice: what to do about them; empty if they are no findings but facts.
    """

    title: str
    rows: Sequence[Row]
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReport:
    """Sections of one report.

    Attributes:
        sections: tables of findings and facts.
        notes: what limits the report.
        is_possible: whether the server could be asked at all.
    """

    sections: Sequence[Section]
    notes: Sequence[str] = ()
    is_possible: bool = True

    @property
    def findings(self) -> int:
        """Number of rows that ask for an action."""
        return sum(len(section.rows) for section in self.sections if section.advice)

    def text(self) -> str:
        """Return the report for people; long texts are cut."""
        parts: list[str] = []
        for section in self.sections:
            if section.rows:
                lines = [f"{section.title}:", *_table(section.rows)]
                parts.append("\n".join([*lines, f"  -> {section.advice}"] if section.advice else lines))
        if not parts and self.is_possible:
            parts.append("nothing found")
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])

    def json(self) -> str:
        """Return the report for programs."""
        content = {
            "findings": self.findings,
            "sections": [
                {"title": one.title, "advice": one.advice, "rows": list(map(dict, one.rows))}
                for one in self.sections
            ],
            "notes": list(self.notes),
        }
        return json.dumps(content, ensure_ascii=False, indent=2)


def in_short(number: float) -> float | int:
    """Round a number to what a reader needs: one decimal place, none from 100."""
    return round(number) if abs(number) >= 100 else round(number, 1)


def _table(rows: Sequence[Row]) -> list[str]:
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(names))]
    numeric = [all(isinstance(row[name], (int, float)) for row in rows) for name in names]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if is_numeric else cell.ljust(width)
            for cell, width, is_numeric in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cell(value: object) -> str:
    # Names come from the database, and could contain anything.
    text = "".join(character if character.isprintable() else "?" for character in str(value))
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"

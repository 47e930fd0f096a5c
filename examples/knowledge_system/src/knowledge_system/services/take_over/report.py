"""The report of a run, written line by line, so that it is there even if the run is killed."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from knowledge_system.services.audit_export import harmless
from knowledge_system.services.take_over.take_over import Line
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from io import FileIO


class ReportError(Exception):
    """The report cannot be written any more; it ends with a whole line.

    Attributes:
        line: the last line, which is not in the report; ``None`` if that is the heading.
        reason: what the operating system says.
    """

    def __init__(self, line: Line | None, reason: str) -> None:
        super().__init__(f"the report cannot be written: {reason}")
        self.line = line
        self.reason = reason


def write(path: Path, lines: Iterable[Line], progress: Callable[[int, int], None]) -> Counter[str]:
    """Write the lines as CSV or JSON Lines, by the ending of the file; return the number of each outcome.

    Raises:
        ConfigurationError: the file has another ending, exists, or cannot be created.
        ReportError: it cannot be written any more, for example because the disk is full.
    """
    if path.suffix not in {".csv", ".jsonl"}:
        raise ConfigurationError(f"report is {str(path)!r}; expected a name that ends in .csv or .jsonl")
    try:
        file = path.open("xb", buffering=0)  # unbuffered: closing it cannot fail on a full disk
    except FileExistsError as error:
        raise ConfigurationError(
            f"report is {str(path)!r}, which exists and is kept: it may be the only record of an earlier run; "
            "expected the name of a new file"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"report is {str(path)!r}, which cannot be written: {error.strerror}"
        ) from error
    as_text = _csv if path.suffix == ".csv" else _json
    counts: Counter[str] = Counter()
    with file:
        if path.suffix == ".csv":
            _append(file, "\ufeff" + _row(Line._fields), None)
        for number, line in enumerate(lines, 1):
            _append(file, as_text(line), line)
            counts[line.outcome] += 1
            progress(number, number + 1)
    return counts


def _append(file: FileIO, text: str, line: Line | None) -> None:
    """Write all of a text, or nothing of it."""
    end, rest = file.tell(), memoryview(text.encode())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        file.truncate(end)
        raise ReportError(line, error.strerror or str(error)) from error


def _row(values: Iterable[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)
    return text.getvalue()


def _csv(line: Line) -> str:
    return _row(harmless(str(value)) for value in (*line[:-1], "\n".join(line.notes)))


def _json(line: Line) -> str:
    return json.dumps(line._asdict(), ensure_ascii=False) + "\n"

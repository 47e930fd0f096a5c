"""The report of a run, written line by line, so that it is there even if the run is killed."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from knowledge_system.services.audit_export import harmless
from knowledge_system.services.take_over.take_over import Line
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from io import TextIOWrapper

__all__ = ["write"]


def write(path: Path, lines: Iterable[Line], progress: Callable[[int, int], None]) -> Counter[str]:
    """Write the lines as CSV or JSON Lines, by the ending of the file; return the number of each outcome.

    Raises:
        ConfigurationError: the file has another ending, or cannot be written.
    """
    if path.suffix not in {".csv", ".jsonl"}:
        raise ConfigurationError(f"report is {str(path)!r}; expected a name that ends in .csv or .jsonl")
    try:
        file = path.open("w", encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8", newline="")
    except OSError as error:
        raise ConfigurationError(
            f"report is {str(path)!r}, which cannot be written: {error.strerror}"
        ) from error
    counts: Counter[str] = Counter()
    with file:
        put = _csv(file) if path.suffix == ".csv" else _json(file)
        for number, line in enumerate(lines, 1):
            put(line)
            file.flush()
            counts[line.outcome] += 1
            progress(number, number + 1)
    return counts


def _csv(file: TextIOWrapper) -> Callable[[Line], object]:
    writer = csv.writer(file)
    writer.writerow(Line._fields)
    return lambda line: writer.writerow(
        [harmless(str(value)) for value in (*line[:-1], "\n".join(line.notes))]
    )


def _json(file: TextIOWrapper) -> Callable[[Line], object]:
    return lambda line: file.write(json.dumps(line._asdict(), ensure_ascii=False) + "\n")

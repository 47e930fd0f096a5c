"""Accepted findings: ``--silence ID=REASON[,until=DATE]`` and the baseline file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final, cast

from mks_check.production_check.finding import Finding
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Suppression", "baseline_text", "parse_silence", "read_baseline"]

_VERSION: Final = 1
_FIELDS: Final = ("id", "fingerprint", "reason", "owner", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """An accepted finding, or with an empty fingerprint all findings of a check.

    Attributes:
        id: id of the check.
        reason: why it is accepted.
        until: last day; ``None`` for ever.
        fingerprint: fingerprint of the one finding.
    """

    id: str
    reason: str
    until: date | None = None
    fingerprint: str = ""

    def covers(self, finding: Finding) -> bool:
        """Return whether the finding is meant."""
        return self.id == finding.id and self.fingerprint in {"", finding.fingerprint}


def parse_silence(text: str, known: Collection[str]) -> Suppression:
    """Return the suppression that ``ID=REASON[,until=YYYY-MM-DD]`` describes.

    Raises:
        ConfigurationError: the id is unknown, the reason is missing, or the date is no date.
    """
    identifier, _, rest = text.partition("=")
    reason, until = rest, ""
    if match := re.fullmatch(r"(.*?),\s*until=(.*)", rest, re.DOTALL):
        reason, until = match[1], match[2].strip()
    identifier, reason = identifier.strip(), reason.strip()
    if identifier not in known:
        raise _refused("silence", f"must begin with the id of a check, not {identifier[:40]!r}")
    if not reason:
        raise _refused("silence", f"must give a reason: {identifier}=REASON[,until=YYYY-MM-DD]")
    return Suppression(id=identifier, reason=reason, until=_day(until, "silence") if until else None)


def read_baseline(text: str, known: Collection[str]) -> list[Suppression]:
    """Return the entries of a baseline file.

    Raises:
        ConfigurationError: it is not JSON of the expected form, or an entry lacks reason, owner or date.
    """
    try:
        whole: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused("baseline", f"must be JSON ({type(error).__name__})") from None
    table = cast("dict[object, object]", whole) if isinstance(whole, dict) else {}
    entries = table.get("findings")
    if table.get("version") != _VERSION or not isinstance(entries, list):
        raise _refused("baseline", f'must be {{"version": {_VERSION}, "findings": [...]}}')
    return [_entry(entry, number, known) for number, entry in enumerate(cast("list[object]", entries), 1)]


def baseline_text(findings: Iterable[Finding], *, reason: str, owner: str, until: date) -> str:
    """Return a baseline file that accepts these findings."""
    entries = [
        {
            "id": finding.id,
            "fingerprint": finding.fingerprint,
            "reason": reason,
            "owner": owner,
            "until": until.isoformat(),
        }
        for finding in findings
    ]
    unique = {(entry["id"], entry["fingerprint"]): entry for entry in entries}
    return (
        json.dumps({"version": _VERSION, "findings": list(unique.values())}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _entry(entry: object, number: int, known: Collection[str]) -> Suppression:
    where = f"entry {number} of the baseline"
    given = cast("dict[object, object]", entry) if isinstance(entry, dict) else {}
    values = {name: given.get(name) for name in _FIELDS}
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise _refused("baseline", f"must have a text for {name!r} in entry {number}")
    texts = cast("dict[str, str]", values)
    if texts["id"] not in known:
        raise _refused("baseline", f"has an unknown id in entry {number}: {texts['id'][:40]!r}")
    return Suppression(
        id=texts["id"],
        reason=f"{texts['reason']} ({texts['owner']})",
        until=_day(texts["until"], where),
        fingerprint=texts["fingerprint"],
    )


def _day(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _refused("until", f"must be a date such as 2027-03-31, not {text[:40]!r} ({where})") from None


def _refused(parameter: str, text: str) -> ConfigurationError:
    return ConfigurationError(f"{parameter} {text}", parameter=parameter)

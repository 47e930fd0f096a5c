"""Accepted findings: reasons, dates, ids, baseline files, and what no longer has an effect."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mks_check import CheckReport, check
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock

NOW = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
BAD = {"MKS_ALLOWED_HOSTS": "a.example", "FLASK_DEBUG": "1", "DEBUG": "1"}
ENTRY = {"id": "MKS-SET-003", "fingerprint": "", "reason": "laptop", "owner": "ops", "until": "2027-01-31"}


def run(environ: dict[str, str] | None = None, **options: Any) -> CheckReport:
    return check(environ=BAD if environ is None else environ, clock=FrozenClock(NOW), **options)


def ids(report: CheckReport) -> list[str]:
    return [finding.id for finding in report.findings]


def baseline(folder: Path, *entries: dict[str, str]) -> Path:
    file = folder / "baseline.json"
    file.write_text(json.dumps({"version": 1, "findings": list(entries)}), "utf-8")
    return file


def test_a_silence_accepts_all_findings_of_a_check() -> None:
    report = run(silence=["MKS-SET-003=laptop of a developer"])
    assert ids(report) == []
    assert {finding.reason for finding in report.accepted} == {"laptop of a developer"}
    assert {finding.key for finding in report.accepted} == {"DEBUG", "FLASK_DEBUG"}


def test_a_silence_holds_to_the_end_of_its_last_day() -> None:
    assert ids(run(silence=["MKS-SET-003=laptop, with a comma, until=2026-11-29"])) == []


def test_an_expired_silence_is_a_finding_and_hides_nothing() -> None:
    report = run(silence=["MKS-SET-003=laptop,until=2026-11-28"])
    assert sorted(ids(report)) == ["MKS-RUN-002", "MKS-SET-003", "MKS-SET-003"]


def test_a_silence_without_effect_is_a_finding() -> None:
    report = run({"MKS_ALLOWED_HOSTS": "a.example"}, silence=["MKS-SET-003=laptop"])
    assert ids(report) == ["MKS-RUN-003"]


def test_a_silence_of_a_check_that_was_not_made_is_none() -> None:
    assert ids(run({"MKS_ALLOWED_HOSTS": "a.example"}, silence=["MKS-WEB-001=a private certificate"])) == []


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("MKS-SET-003", "reason"),
        ("MKS-SET-003= ", "reason"),
        ("MKS-SET-003=,until=2027-01-01", "reason"),
        ("MKS-SET-3=laptop", "id of a check"),
        ("=laptop", "id of a check"),
        ("MKS-SET-003=laptop,until=soon", "a date such as"),
        ("MKS-SET-003=laptop,until=2027-02-30", "a date such as"),
    ],
)
def test_a_faulty_silence_is_refused(text: str, clue: str) -> None:
    with pytest.raises(ConfigurationError, match=clue):
        run(silence=[text])


def test_a_baseline_accepts_one_finding(tmp_path: Path) -> None:
    first = next(finding for finding in run().findings if finding.key == "DEBUG")
    report = run(baseline=baseline(tmp_path, {**ENTRY, "fingerprint": first.fingerprint}))
    assert [finding.key for finding in report.findings] == ["FLASK_DEBUG"]
    assert [finding.reason for finding in report.accepted] == ["laptop (ops)"]


@pytest.mark.parametrize("name", ["id", "fingerprint", "reason", "owner", "until"])
@pytest.mark.parametrize("value", ["", None, 1])
def test_an_entry_needs_everything(tmp_path: Path, name: str, value: object) -> None:
    entry: dict[str, Any] = {**ENTRY, "fingerprint": "a" * 32, name: value}
    with pytest.raises(ConfigurationError, match=name):
        run(baseline=baseline(tmp_path, entry))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "findings": []}', '{"version": 1, "findings": 1}', "["]
)
def test_a_faulty_baseline_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match="baseline must be"):
        run(baseline=file)


def test_a_missing_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="readable"):
        run(baseline=tmp_path / "none.json")


def test_fingerprints_stay_when_lines_are_moved(tmp_path: Path) -> None:
    file = tmp_path / "shop.env"
    file.write_text("MKS_ALLOWED_HOSTS=a.example\nDEBUG=1\n", "utf-8")
    before = check(env_file=file).findings
    file.write_text("MKS_ALLOWED_HOSTS=a.example\n# moved\n\nDEBUG=1\n", "utf-8")
    after = check(env_file=file).findings
    assert [finding.line for finding in (*before, *after)] == [2, 4]
    assert [finding.fingerprint for finding in before] == [finding.fingerprint for finding in after]

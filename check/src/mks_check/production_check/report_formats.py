"""Reports as text, JSON, SARIF 2.1.0 and GitHub annotations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mks_check.production_check.finding import Finding
from mks_check.production_check.registry import definitions
from mks_check.production_check.runner import CheckReport
from mks_hardening._core.checks import choice, instance, text_of

if TYPE_CHECKING:
    from mks_check.production_check.check_definition import Language

__all__ = ["FORMATS", "render_report"]

FORMATS: Final = ("text", "json", "sarif", "github")
_GITHUB_LEVELS: Final = {"error": "error", "warning": "warning", "note": "notice"}
_WORDS: Final = {
    "en": {
        "error": "error", "warning": "warning", "note": "note", "fix": "fix", "see": "see", "none": "no findings",
        "sum": "{} findings, {} accepted, {} checks made", "failed": "could not run",
    },
    "ja": {
        "error": "エラー", "warning": "警告", "note": "注意", "fix": "対処", "see": "参照", "none": "検出結果はありません",
        "sum": "検出 {} 件、許容 {} 件、検査 {} 件", "failed": "実行できませんでした",
    },
}  # fmt: skip


def render_report(
    report: CheckReport, *, style: str = "text", lang: str = "en", anchor: str = "pyproject.toml"
) -> str:
    """Return a report as text.

    Args:
        report: result of ``check``.
        style: ``text``, ``json``, ``sarif`` (2.1.0, for code scanning) or ``github`` (annotations of a workflow).
        lang: language of the words around the findings, ``en`` or ``ja``.
        anchor: file that SARIF results without a file point to; code scanning accepts none without one.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    instance(report, CheckReport, parameter="report")
    language: Language = "ja" if choice(lang, ("en", "ja"), parameter="lang") == "ja" else "en"
    text_of(anchor, parameter="anchor", empty=False)
    match choice(style, FORMATS, parameter="style"):
        case "json":
            return _json(report)
        case "sarif":
            return _sarif(report, anchor)
        case "github":
            return "".join(f"{line}\n" for line in _github(report))
        case _:
            return "".join(f"{line}\n" for line in _text(report, language))


def _text(report: CheckReport, language: Language) -> Iterator[str]:
    words = _WORDS[language]
    for text in report.failed:
        yield f"{words['failed']}: {text}"
    for finding in report.findings:
        where = (
            f"{finding.file}:{finding.line}: "
            if finding.line
            else f"{finding.file}: "
            if finding.file
            else ""
        )
        yield f"{finding.id} {words[finding.level]}: {where}{finding.title}"
        yield f"    {finding.evidence}"
        yield f"    {words['fix']}: {finding.fix}"
        yield f"    {words['see']}: {finding.link}"
    if not report.findings and not report.failed:
        yield words["none"]
    yield words["sum"].format(len(report.findings), len(report.accepted), len(report.checked))


def _json(report: CheckReport) -> str:
    import json

    whole = {
        "version": 1,
        "findings": [_record(finding) for finding in report.findings],
        "accepted": [{**_record(finding), "reason": finding.reason} for finding in report.accepted],
        "checked": list(report.checked),
        "failed": list(report.failed),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _record(finding: Finding) -> dict[str, object]:
    names = ("id", "level", "title", "evidence", "fix", "link", "key", "file", "line", "fingerprint")
    return {name: getattr(finding, name) for name in names}


def _sarif(report: CheckReport, anchor: str) -> str:
    import json
    from importlib.metadata import version

    everything = (*report.findings, *report.accepted)
    named = {finding.id for finding in everything}
    rules = [
        {
            "id": check.id,
            "shortDescription": {"text": check.title["en"]},
            "help": {"text": f"{check.fix['en']} {check.link}"},
            "helpUri": check.link,
            "defaultConfiguration": {"level": check.level},
        }
        for check in definitions()
        if check.id in named
    ]
    driver: dict[str, object] = {
        "name": "mks-hardening check",
        "version": version("mks-hardening"),
    }
    invocation: dict[str, object] = {"executionSuccessful": not report.failed}
    if rules:
        driver["rules"] = rules
    if report.failed:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": text}} for text in report.failed
        ]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "mks-hardening-check/"},
        "invocations": [invocation],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, anchor) for finding in everything],
    }
    whole = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _result(finding: Finding, anchor: str) -> dict[str, object]:
    from urllib.parse import quote

    # Addresses are relative (code scanning shows no others), and a line is at least 1.
    uri = quote((finding.file or anchor).lstrip("/").removeprefix("./")) or anchor
    result: dict[str, object] = {
        "ruleId": finding.id,
        "level": finding.level,
        "message": {"text": f"{finding.title} {finding.evidence} {finding.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri},
                    "region": {"startLine": max(finding.line, 1)},
                }
            }
        ],
        "partialFingerprints": {"mksHardening/v1": finding.fingerprint},
    }
    if finding.reason:
        result["suppressions"] = [{"kind": "external", "justification": finding.reason}]
    return result


def _github(report: CheckReport) -> Iterator[str]:
    for text in report.failed:
        yield f"::error title=mks-hardening check::{_escaped(text)}"
    for finding in report.findings:
        place = f"file={_property(finding.file)},line={max(finding.line, 1)}," if finding.file else ""
        text = _escaped(f"{finding.title}\n{finding.evidence}\n{finding.fix}")
        yield f"::{_GITHUB_LEVELS[finding.level]} {place}title={_property(finding.id)}::{text}"


def _escaped(text: str) -> str:
    """Escape data of a workflow command: a line break would begin another command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")

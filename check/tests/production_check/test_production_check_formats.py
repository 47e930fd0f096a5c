"""Reports: text, JSON, SARIF 2.1.0 and GitHub annotations; no secret and no control character in any of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from mks_check import CheckReport, Finding, check, definitions, render_report
from mks_hardening.exceptions import ConfigurationError

SECRET = "Vq8xT1mWc7LrYp0s"
REPORT = check(
    environ={
        "MKS_ALLOWED_HOSTS": "a.example",
        "DEBUG": "1",
        "MKS_ENV": "development",
        "CELERY_BROKER_URL": f"redis://:{SECRET}@queue.example.com/0",
        "SECRET_KEY": SECRET,
    },
    silence=["MKS-SET-004=a laptop"],
)

# What the schema of SARIF 2.1.0 and code scanning require of the parts that are written.
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RESULT = {
    "type": "object",
    "required": ["ruleId", "level", "message", "locations", "partialFingerprints"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string", "pattern": r"^MKS-[A-Z]+-\d{3}$"},
        "level": LEVEL,
        "message": TEXT,
        "locations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["physicalLocation"],
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "required": ["artifactLocation", "region"],
                        "properties": {
                            "artifactLocation": {
                                "required": ["uri"],
                                "properties": {"uri": {"type": "string", "pattern": r"^[^/\s:][^\s:]*$"}},
                            },
                            "region": {
                                "required": ["startLine"],
                                "properties": {"startLine": {"type": "integer", "minimum": 1}},
                            },
                        },
                    }
                },
            },
        },
        "partialFingerprints": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"type": "string", "minLength": 1},
        },
        "suppressions": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"enum": ["inSource", "external"]},
                    "justification": {"type": "string"},
                },
            },
        },
    },
}
SARIF: dict[str, Any] = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {
                "type": "object",
                "required": ["tool", "results", "automationDetails"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "version"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "minItems": 1,
                                        "items": {
                                            "required": ["id", "shortDescription"],
                                            "properties": {
                                                "shortDescription": TEXT,
                                                "help": TEXT,
                                                "helpUri": {"type": "string", "pattern": "^https://"},
                                                "defaultConfiguration": {"properties": {"level": LEVEL}},
                                            },
                                        },
                                    }
                                },
                            }
                        },
                    },
                    "automationDetails": {"properties": {"id": {"type": "string", "pattern": "[^/]/$"}}},
                    "invocations": {"items": {"required": ["executionSuccessful"]}},
                    "results": {"type": "array", "items": RESULT},
                },
            },
        },
    },
}


def sarif(report: CheckReport) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(render_report(report, style="sarif"))
    jsonschema.Draft202012Validator(SARIF).validate(whole)
    return whole


@pytest.mark.parametrize("style", ["text", "json", "sarif", "github"])
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_no_report_contains_a_secret(style: str, lang: str) -> None:
    text = render_report(REPORT, style=style, lang=lang)
    assert "MKS-SET-003" in text
    assert SECRET not in text


def test_text_names_place_problem_evidence_fix_and_source() -> None:
    lines = render_report(REPORT).splitlines()
    first = lines.index("MKS-SET-003 error: Debug mode is on.")
    assert lines[first + 1] == "    DEBUG=1"
    assert lines[first + 2].startswith("    fix: Unset")
    assert lines[first + 3].startswith("    see: https://")
    assert lines[-1] == f"{len(REPORT.findings)} findings, 1 accepted, {len(REPORT.checked)} checks made"


def test_text_in_japanese() -> None:
    report = check(environ={"MKS_ALLOWED_HOSTS": "a.example", "DEBUG": "1"}, lang="ja")
    text = render_report(report, lang="ja")
    assert "MKS-SET-003 エラー: デバッグモードが有効です。" in text
    assert "    対処: 変数を削除してください。" in text
    assert text.splitlines()[-1].startswith("検出 1 件")


def test_nothing_found_is_said() -> None:
    assert render_report(check(environ={"MKS_ALLOWED_HOSTS": "a.example"})).startswith("no findings\n")


def test_json_has_everything() -> None:
    whole = json.loads(render_report(REPORT, style="json"))
    assert [each["id"] for each in whole["findings"]] == [finding.id for finding in REPORT.findings]
    assert whole["accepted"][0]["reason"] == "a laptop"
    assert whole["findings"][0].keys() == {
        "id",
        "level",
        "title",
        "evidence",
        "fix",
        "link",
        "key",
        "file",
        "line",
        "fingerprint",
    }


def test_sarif_has_the_structure_of_the_schema() -> None:
    run = sarif(REPORT)["runs"][0]
    assert {each["ruleId"] for each in run["results"]} == {
        each["id"] for each in run["tool"]["driver"]["rules"]
    }
    suppressed = [each for each in run["results"] if "suppressions" in each]
    assert [each["suppressions"][0]["justification"] for each in suppressed] == ["a laptop"]


def test_sarif_without_findings_has_no_empty_list_of_rules() -> None:
    run = sarif(CheckReport(findings=()))["runs"][0]
    assert "rules" not in run["tool"]["driver"]


def test_sarif_says_what_could_not_run() -> None:
    run = sarif(CheckReport(findings=(), failed=("https://a.example cannot be reached",)))["runs"][0]
    assert run["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize("file", ["/etc/nginx/a b.conf", "./shop.env", "ä.conf", "/", "a\nb", "C:\\x"])
def test_sarif_addresses_are_relative_uris(file: str) -> None:
    finding = Finding(
        id="MKS-SET-003",
        level="error",
        title="t",
        evidence="e",
        fix="f",
        link="https://a.example",
        file=file,
        line=0,
    )
    sarif(CheckReport(findings=(finding,)))


def test_github_annotations_are_one_line_each_and_escaped() -> None:
    finding = Finding(
        id="MKS-SET-003",
        level="note",
        title="100 %",
        evidence="a\r\n::error::injected",
        fix="f",
        link="https://a.example",
        file="a,b:c.env",
        line=3,
    )
    text = render_report(CheckReport(findings=(finding,)), style="github")
    assert text == (
        "::notice file=a%2Cb%3Ac.env,line=3,title=MKS-SET-003::100 %25%0Aa%0D%0A::error::injected%0Af\n"
    )


def test_evidence_has_no_control_characters_and_an_end() -> None:
    report = check(
        environ={"MKS_ALLOWED_HOSTS": "a.example", "CSRF_TRUSTED_ORIGINS": "http://\x1b[31m" + "a" * 5000}
    )
    evidence = report.findings[0].evidence
    assert "\\x1b[31m" in evidence
    assert len(evidence) <= 300


@pytest.mark.parametrize("wrong", [{"style": "xml"}, {"lang": "de"}, {"anchor": ""}])
def test_unknown_formats_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        render_report(REPORT, **wrong)


def test_every_check_can_be_explained_in_both_languages() -> None:
    assert all(set(each.title) == set(each.fix) == {"en", "ja"} for each in definitions())

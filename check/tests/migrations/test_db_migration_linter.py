"""The migration linter: lines, waivers, reports, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_check import MigrationFinding, MigrationLinter, MigrationReport
from mks_hardening.exceptions import ConfigurationError


def _lint(sql: str, **options: Any) -> MigrationReport:
    return MigrationLinter(server_version=17, has_lock_timeout=True).lint_sql(sql, **options)


def _ids(findings: tuple[MigrationFinding, ...]) -> list[str]:
    return [found.rule_id for found in findings]


def test_a_finding_names_the_line_of_its_statement() -> None:
    sql = "-- first\nSELECT 1;\n\n/* two\nlines */ CREATE INDEX i\nON t (a);\nALTER TABLE t\nDROP b;"
    found = _lint(sql).findings
    assert [(one.rule_id, one.line) for one in found] == [
        ("MG301", 5),
        ("MG210", 7),
    ]
    assert "t.b" in found[-1].message


def test_a_waiver_accepts_a_rule_with_a_reason() -> None:
    report = _lint("-- mks: allow MG301 the table has 20 rows\nCREATE INDEX i ON t (a);")
    assert report.failures("note") == ()
    (found,) = report.findings
    assert found.waiver == "the table has 20 rows"
    assert "1 accepted with a reason" in report.text()


def test_a_waiver_does_not_accept_its_neighbours() -> None:
    report = _lint("/* mks: allow MG301: small */ CREATE INDEX i ON t (a); ALTER TABLE t DROP b;")
    assert set(_ids(report.failures())) == {"MG210"}


def test_a_waiver_may_be_limited_to_a_table_or_column() -> None:
    sql = "ALTER TABLE t DROP a; ALTER TABLE t DROP b; ALTER TABLE u DROP a; -- mks: allow MG210({}) unused"
    assert [one.subject for one in _lint(sql.format("t")).failures()] == ["u.a"]
    assert [one.subject for one in _lint(sql.format("t.a")).failures()] == ["t.b", "u.a"]


@pytest.mark.parametrize(
    "comment", ["mks: allow MG301", "mks: allow MG999 because", "mks: allow everything", "mks: allow"]
)
def test_an_invalid_waiver_is_an_error_and_accepts_nothing(comment: str) -> None:
    report = _lint(f"-- {comment}\nCREATE INDEX i ON t (a);")
    assert set(_ids(report.failures())) == {"MG301", "MG901"}


def test_a_waiver_that_matches_nothing_is_reported() -> None:
    (found,) = _lint("-- mks: allow MG301 small\nSELECT 1;").findings
    assert (found.rule_id, found.level, found.line) == ("MG902", "warning", 1)


def test_a_waiver_in_a_string_is_none() -> None:
    report = _lint("COMMENT ON TABLE t IS '-- mks: allow MG301 small'; CREATE INDEX i ON t (a);")
    assert _ids(report.failures()) == ["MG301"]


@pytest.mark.parametrize(
    ("oldest", "rules"),
    [
        ("3.2", set()),
        ("3.2.0", set()),
        ("3.10", set()),
        ("4", set()),
        ("3.1.9", {"MG210", "MG211"}),
        ("2", {"MG210", "MG211"}),
    ],
)
def test_a_contract_is_accepted_when_no_older_release_runs(oldest: str, rules: set[str]) -> None:
    linter = MigrationLinter(server_version=17, has_lock_timeout=True, oldest_release=oldest)
    report = linter.lint_sql("ALTER TABLE t DROP a; -- mks: contract 3.2 nothing reads t.a since then")
    assert set(_ids(report.failures("note"))) == rules


def test_a_contract_without_a_known_release_is_a_warning() -> None:
    report = _lint("ALTER TABLE t DROP a; -- mks: contract 3.2 nothing reads t.a since then")
    assert [(one.rule_id, one.level) for one in report.failures("note")] == [("MG211", "warning")]


@pytest.mark.parametrize(
    "mark", ["mks: contract", "mks: contract 3.2", "mks: contract soon nothing reads it"]
)
def test_an_invalid_contract_accepts_nothing(mark: str) -> None:
    assert set(_ids(_lint(f"ALTER TABLE t DROP a; -- {mark}").failures())) == {"MG210", "MG901"}


def test_a_contract_accepts_only_what_is_taken_away() -> None:
    linter = MigrationLinter(server_version=17, has_lock_timeout=True, oldest_release="9")
    report = linter.lint_sql("CREATE INDEX i ON t (a); -- mks: contract 3.2 nothing reads it")
    assert set(_ids(report.failures("warning"))) == {"MG301", "MG902"}


@pytest.mark.parametrize("release", ["", "3.x", "v3", "3.", "-1", 3, "9" * 10_000])
def test_an_impossible_release_is_refused(release: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MigrationLinter(server_version=17, oldest_release=release)
    assert caught.value.parameter == "oldest_release"


def test_levels_select_what_fails() -> None:
    report = _lint("CREATE TABLE n (id serial PRIMARY KEY, d json)")
    assert _ids(report.failures()) == []
    assert _ids(report.failures("warning")) == ["MG209"]
    assert set(_ids(report.failures("note"))) == {"MG209", "MG215"}
    with pytest.raises(ConfigurationError):
        report.failures("fatal")  # type: ignore[arg-type] # a wrong level is what is tried


def test_the_text_explains_each_rule_once() -> None:
    text = _lint("CREATE INDEX i ON t (a); CREATE INDEX j ON t (b)", name="0002").text()
    assert text.count("error MG301 index-not-concurrent: t:") == 2
    assert text.count("    1. CREATE INDEX CONCURRENTLY") == 1
    assert text.splitlines()[0].startswith("0002:1: error ")


def test_reports_for_programs() -> None:
    report = _lint("CREATE INDEX i ON t (a); -- mks: allow MG301 small\nALTER TABLE u DROP b", name="0002")
    document = json.loads(report.json())
    assert document["migrations"] == ["0002"]
    assert {(one["rule_id"], one["waiver"]) for one in document["findings"]} >= {
        ("MG301", "small"),
        ("MG210", ""),
    }
    (run,) = json.loads(report.sarif())["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    assert [one["ruleId"] for one in run["results"] if "suppressions" in one] == ["MG301"]


def test_files_are_read_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1.sql", tmp_path / "2.sql"
    first.write_text("CREATE TABLE t (a varchar(5));", encoding="utf-8")
    second.write_text("ALTER TABLE t ALTER a TYPE text;\nALTER TABLE t DROP a;", encoding="utf-8")
    report = MigrationLinter(server_version=17, has_lock_timeout=True).lint_sql_files([first, second])
    assert report.migrations == ("1", "2")
    assert [(one.path, one.line, one.rule_id) for one in report.findings] == [(str(second), 2, "MG210")]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sql"
    bad.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.sql", bad):
        with pytest.raises(ConfigurationError, match=path.name):
            MigrationLinter(server_version=17).lint_sql_files([path])
    with pytest.raises(ConfigurationError, match="paths"):
        MigrationLinter(server_version=17).lint_sql_files("one.sql")


@pytest.mark.parametrize("version", [0, 8, 1000, True, "17", None, 17.0])
def test_an_impossible_version_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MigrationLinter(server_version=version)
    assert caught.value.parameter == "server_version"


WORDS = st.sampled_from(
    (
        *(
            "alter",
            "table",
            "t",
            "add",
            "column",
            "c",
            "int",
            "(",
            ")",
            ",",
            ";",
            "drop",
            "index",
            "create",
            "not",
        ),
        *(
            "null",
            "default",
            "'x'",
            "constraint",
            "check",
            "valid",
            "references",
            "using",
            "set",
            "type",
            "unique",
        ),
        *(
            "primary",
            "key",
            "begin",
            "commit",
            "do",
            "$$",
            "--",
            "/*",
            "*/",
            '"',
            "concurrently",
            "rename",
            "to",
        ),
    )
)


@given(st.lists(WORDS, max_size=25).map(" ".join))
def test_no_text_is_passed_over_or_crashes(sql: str) -> None:
    report = _lint(sql)
    assert report.migrations == ("migration",)
    assert all(found.rule.reason for found in report.findings)


@given(st.text(max_size=60))
def test_any_text_can_be_judged(sql: str) -> None:
    assert _lint(sql).migrations

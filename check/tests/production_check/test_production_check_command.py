"""``mks-hardening check``: exit status, formats, files, explanations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mks_hardening.cli import main

GOOD = "MKS_ALLOWED_HOSTS=a.example\n"


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an environment file, from which the command is typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.env").write_text(GOOD, "utf-8")
    (tmp_path / "bad.env").write_text(f"{GOOD}DEBUG=1\nMKS_RATE_LIMITS_DRY_RUN=a\n", "utf-8")
    (tmp_path / "note.env").write_text(f"{GOOD}MKS_RATE_LIMITS_DRY_RUN=a\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--env-file good.env", 0),
        ("--env-file bad.env", 1),
        ("--env-file note.env", 1),
        ("--env-file note.env --fail-level warning", 0),
        ("--env-file bad.env --fail-level error", 1),
        ("--env-file bad.env --silence MKS-SET-003=a --silence MKS-SET-020=b", 0),
        ("--env-file none.env", 3),
        ("--files none.conf", 3),
        ("--url http://127.0.0.1:1/", 3),
        ("--url ftp://a.example", 2),
        ("--env-file good.env --silence MKS-SET-999=a", 2),
        ("--env-file good.env --silence MKS-SET-003", 2),
        ("--env-file good.env --baseline none.json", 2),
        ("--env-file good.env --write-baseline a.json", 2),
        ("--env-file good.env --write-baseline a.json --reason a --owner b --until soon", 2),
        ("--env-file good.env --body-limit big", 2),
        ("--env-file good.env --output no/such/folder/a.txt", 2),
        ("--explain MKS-SET-003", 0),
        ("--explain MKS-SET-3", 2),
        ("--list", 0),
    ],
)
@pytest.mark.usefixtures("good")
def test_exit_status(arguments: str, status: int) -> None:
    assert main(["check", *arguments.split()]) == status


@pytest.mark.parametrize("arguments", ["--format xml", "--lang de", "--fail-level fatal", "--files"])
def test_wrong_usage(arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", *arguments.split()])
    assert ended.value.code == 2


@pytest.mark.usefixtures("good")
def test_the_report_goes_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--env-file", "bad.env", "--format", "sarif", "--output", "a.sarif"]) == 1
    assert capsys.readouterr().out == ""
    assert json.loads(Path("a.sarif").read_text("utf-8"))["version"] == "2.1.0"


@pytest.mark.usefixtures("good")
def test_a_baseline_is_written_and_then_accepts_everything() -> None:
    written = (
        "check --env-file bad.env --write-baseline a.json --reason legacy --owner ops --until 2099-12-31"
    )
    assert main(written.split()) == 0
    assert main(["check", "--env-file", "bad.env", "--baseline", "a.json"]) == 0
    assert main(["check", "--env-file", "note.env", "--baseline", "a.json"]) == 1


def test_the_command_says_what_it_will_send(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--url", "http://127.0.0.1:1/"]) == 3
    assert main(["check", "--url", "http://user:hunter2@127.0.0.1:1/"]) == 2
    text = capsys.readouterr().err
    assert "at most 80 requests that change nothing to 127.0.0.1:1\n" in text
    assert "hunter2" not in text


def test_explanations_in_both_languages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--explain", "MKS-SET-003"]) == 0
    assert main(["check", "--explain", "MKS-SET-003", "--lang", "ja"]) == 0
    text = capsys.readouterr().out
    assert "Debug mode is on." in text
    assert "デバッグモードが有効です。" in text


def test_the_list_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    from mks_check import definitions

    assert main(["check", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [check.id for check in definitions()]

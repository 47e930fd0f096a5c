"""The command line: what it prints and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mks_hardening.cli import main
from mks_hardening.settings import variables
from testbed.run_python import run_python


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert (
        capsys.readouterr().out
        == f"mks-hardening {version('mks-hardening')} (Python {sys.version.split()[0]})\n"
    )


@pytest.mark.parametrize(
    "arguments", [["check", "--files", "deploy"], ["migrations", "lint", "0001.sql"], ["db", "top"]]
)
def test_the_package_of_a_command_that_is_missing_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    assert main(arguments) == 2
    said = "mks-check is not installed; it comes with the extra 'check': pip install 'mks-hardening[check]'\n"
    assert capsys.readouterr() == ("", said)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


def test_env_tells_of_every_variable_and_of_no_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in variables():
        monkeypatch.setenv(variable.name, "a-secret-value")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [variable.name for variable in variables() if variable.name not in lines] == []
    assert [variable.help for variable in variables() if variable.help not in text] == []
    assert "a-secret-value" not in text


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["version", "--no-such-option"]])
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: mks-hardening" in capsys.readouterr().err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert {"env", "version"} <= set(capsys.readouterr().out.split())


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "mks_hardening", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("mks-hardening ")


NOISY = """
import atexit, os, subprocess, sys
print("printed")
sys.__stdout__.write("written")
os.write(1, b"to the descriptor")
subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
atexit.register(print, "at exit")
revision, down_revision = "1", None

def app(environ, start_response):
    return []

def upgrade():
    print("in a function")
"""


@pytest.mark.parametrize("style", ["json", "sarif"])
@pytest.mark.parametrize(
    "command",
    ["check --app noisy:app", "migrations lint --server-version 17 --alembic ."],
    ids=lambda command: command.split()[0],
)
def test_a_report_is_not_mixed_with_the_output_of_the_inspected_code(
    command: str, style: str, tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, "utf-8")
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "noisy.py").write_text(NOISY, "utf-8")
    arguments = [*command.split(), "--format", style]
    done = subprocess.run(
        [sys.executable, "-m", "mks_hardening", *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    for text in ("printed", "written", "to the descriptor", "by a child", "at exit"):
        assert text in done.stderr


def test_a_command_gives_standard_output_back_to_its_caller(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.sql").write_text("SELECT 1", "utf-8")
    assert main(["migrations", "lint", "--server-version", "17", "--format", "json", str(tmp_path)]) == 0
    os.write(1, b" mine")
    report, mine = capfd.readouterr().out.rsplit(" ", 1)
    assert json.loads(report)["migrations"] == ["a"]
    assert mine == "mine"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = """
    import os, sys
    from mks_hardening.cli import main
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.exit(main(["env"]))
    """
    done = run_python(code, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_importing_the_command_line_is_cheap() -> None:
    code = """
    import sys
    before = set(sys.modules)
    import mks_hardening.cli
    print(sorted(name for name in set(sys.modules) - before if name.startswith("mks_hardening.")))
    """
    names = (
        "_bans",
        "_cache",
        "_maintenance",
        "_passwords",
        "_report_stream",
        "_second_factor",
        "_settings",
        "_sign_in",
        "_target",
        "_tasks",
    )
    commands = [f"mks_hardening.cli.{name}" for name in names]
    own = ["mks_hardening.cli", *commands, "mks_hardening.exceptions"]
    assert run_python(code).stdout.strip() == str(own)


def test_the_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert (
        capsys.readouterr().out
        == f"mks-hardening {version('mks-hardening')} (Python {sys.version.split()[0]})\n"
    )


@pytest.mark.parametrize("command", ["env", "version", "--version"])
@pytest.mark.parametrize(("redirect", "code"), [(">&-", 0), (">/dev/full", 1)])
def test_output_that_cannot_be_written_is_told_in_one_line(command: str, redirect: str, code: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -I -m mks_hardening {command} {redirect}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    said = "the output cannot be written: No space left on device\n" if code else ""
    assert (done.returncode, done.stderr) == (code, said)

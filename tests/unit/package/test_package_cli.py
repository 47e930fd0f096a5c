"""The command line: what it prints and how it ends."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

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
        "_database_reports",
        "_maintenance",
        "_migrations",
        "_passwords",
        "_production_check",
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

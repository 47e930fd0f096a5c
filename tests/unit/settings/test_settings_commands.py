"""``mks-hardening settings``: the variables of the package and of an application."""

from __future__ import annotations

from pathlib import Path

import pytest

from mks_hardening.cli import main
from mks_hardening.settings import ApplicationSettings, HardeningSettings, setting, variables

TARGET = ["--target", f"{__name__}:KioskSettings"]


class KioskSettings(ApplicationSettings, prefix="KIOSK_"):
    page_size: int = setting("Articles of one page.", default=20, minimum=1, maximum=200)
    payment_key: str = setting("Key of the payment provider.", secret=True)
    mail: str = setting("Sender of mails.", default="", required_in_production=True)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKS_ENV", "test")
    monkeypatch.setenv("KIOSK_PAYMENT_KEY", "hunter2")


def test_the_list_has_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "list", *TARGET]) == 0
    text = capsys.readouterr().out
    assert {row.name for row in variables()} <= set(text.splitlines())
    assert text.endswith(
        """
[application]
KIOSK_PAGE_SIZE
    Articles of one page.
    whole number, 1 to 200; default 20
KIOSK_PAYMENT_KEY
    Key of the payment provider.
    text; required; secret: KIOSK_PAYMENT_KEY_FILE may point to a file instead
KIOSK_MAIL
    Sender of mails.
    text; required in production
"""
    )
    assert "hunter2" not in text


def test_without_a_target_it_is_the_command_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "list"]) == 0
    listed = capsys.readouterr().out
    assert main(["env"]) == 0
    assert capsys.readouterr().out == listed


def test_a_valid_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["settings", "check", *TARGET]) == 0
    assert capsys.readouterr() == ("all settings are valid\n", "")
    monkeypatch.setenv("KIOSK_PAGESIZE", "3")
    assert main(["settings", "check", *TARGET]) == 0
    warned = "warning: unknown variable KIOSK_PAGESIZE; did you mean KIOSK_PAGE_SIZE?\n"
    assert capsys.readouterr().err == warned


def test_all_errors_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MKS_LOG_LEVEL": "LOUD", "KIOSK_PAGE_SIZE": "0", "KIOSK_PAYMENT_KEY": ""}.items():
        monkeypatch.setenv(name, value)
    assert main(["settings", "check", *TARGET]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines[1:]] == [
        "MKS_LOG_LEVEL",
        "KIOSK_PAGE_SIZE",
        "KIOSK_PAYMENT_KEY",
    ]
    assert main(["settings", "check"]) == 2
    assert "KIOSK" not in capsys.readouterr().err


def test_a_template_is_valid_once_it_is_filled_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["settings", "template", *TARGET]) == 0
    text = capsys.readouterr().out
    assert "\nKIOSK_PAYMENT_KEY_FILE=\n" in text
    assert "\n#MKS_REDIS_URL_FILE=\n" in text
    assert "\n#KIOSK_PAGE_SIZE=20\n" in text
    assert "hunter2" not in text
    key = tmp_path / "key"
    key.write_text("hunter2")
    filled = text.replace("KIOSK_PAYMENT_KEY_FILE=", f"KIOSK_PAYMENT_KEY_FILE={key}")
    filled = filled.replace("KIOSK_MAIL=", "KIOSK_MAIL=kiosk@example.com")
    pairs = [line.partition("=")[::2] for line in filled.splitlines() if line and not line.startswith("#")]
    settings = KioskSettings.from_env(environ=dict(pairs))
    assert (settings.payment_key, settings.mail) == ("hunter2", "kiosk@example.com")
    assert settings.hardening == HardeningSettings()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "--target must be MODULE:NAME"),
        ("nowhere_at_all:Settings", "cannot be imported"),
        (f"{__name__}:Nothing", "cannot be imported"),
        ("pathlib:Path", "must be a class derived from ApplicationSettings"),
        ("pathlib:__doc__", "must be a class derived from ApplicationSettings"),
    ],
)
def test_a_wrong_target(target: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list", "check", "template"):
        assert main(["settings", command, "--target", target]) == 2
        assert message in capsys.readouterr().err

"""A staging site: its mail is kept and goes nowhere, and no alert of it can reach people."""

from __future__ import annotations

import asyncio
import re
import shlex
import smtplib
import threading
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest

from deploy_settings import deployed
from mks_deploy.cli import main, parser
from mks_deploy.operations.mail_sink import MailSink
from mks_deploy.operations.masking import MASKS, read_mask_table
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.setup.plan import units_to_enable
from mks_deploy.versions import Installed

STAGING = '[site]\nenvironment = "staging"\n[upkeep]\nmail_sink = true\n'


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[int]:
    """The port of a sink that keeps three mails in the folder ``kept``."""
    ports: list[int] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    serving: list[asyncio.Task[None]] = []

    async def serve() -> None:
        ready: asyncio.Future[int] = loop.create_future()
        serving.append(asyncio.ensure_future(MailSink(tmp_path / "kept", keep=3).serve(0, ready=ready)))
        ports.append(await ready)
        started.set()
        await asyncio.gather(*serving, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(serving[0].cancel)
    thread.join()
    loop.close()


def message(subject: str, body: str = "hello") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.jp", "people@example.jp", subject
    mail.set_content(body)
    return mail


def test_mail_is_kept_as_it_was_sent_and_the_oldest_deleted(sink: int, tmp_path: Path) -> None:
    with smtplib.SMTP("127.0.0.1", sink, timeout=10) as client:
        for number in range(5):
            client.send_message(message(f"通知 {number}", ".begins with a dot\n.\nend"))
    kept = sorted((tmp_path / "kept").iterdir())
    mails = [BytesParser(policy=policy.default).parsebytes(file.read_bytes()) for file in kept]
    assert [mail["Subject"] for mail in mails] == ["通知 2", "通知 3", "通知 4"]
    assert mails[0].get_content().splitlines() == [".begins with a dot", ".", "end"]
    assert mails[0]["X-Envelope-To"] == "<people@example.jp>"
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o640}


def test_a_client_that_is_wrong_or_leaves_harms_nobody(sink: int, tmp_path: Path) -> None:
    with smtplib.SMTP("127.0.0.1", sink, timeout=10) as client:
        assert client.docmd("DATA")[0] == 502
        assert client.docmd("VRFY x")[0] == 502
        client.docmd("MAIL", "FROM:<a@example.jp>")
        client.docmd("RCPT", "TO:<b@example.jp>")
        assert client.docmd("DATA")[0] == 354
        client.send(b"half a mail")
        client.close()
    with smtplib.SMTP("127.0.0.1", sink, timeout=10) as client:
        client.send_message(message("next"))
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_the_application_of_staging_sends_to_the_sink(tmp_path: Path) -> None:
    settings = read_settings(deployed(STAGING))
    files = {file.path: file.text for file in render(settings, Installed())}
    variables = files["etc/knowledge-system/knowledge-system.env"]
    for line in (
        "MKS_SMTP_HOST=localhost",
        "MKS_SMTP_PORT=2525",
        "MKS_SMTP_SECURITY=plain",
        "MKS_ENV=staging",
    ):
        assert f"\n{line}\n" in variables
    assert "etc/systemd/system/knowledge-system-sink.service" in files
    assert "knowledge-system-sink.service" in units_to_enable(settings)
    make_missing(tmp_path / "secrets", settings)
    assert list(credential_errors(tmp_path / "secrets", settings)) == []
    hook = tmp_path / "secrets/slack_webhook_url"
    hook.write_text("https://hooks.slack.com/services/x")
    hook.chmod(0o600)
    (error,) = credential_errors(tmp_path / "secrets", settings)
    assert "would send alerts of staging to people" in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[upkeep]\nmail_sink = true", r'upkeep\.mail_sink needs site\.environment = "staging"'),
        (STAGING + 'smtp_host = "mail.example.jp"', r"upkeep\.mail_sink replaces upkeep\.smtp_host"),
        (STAGING + "mail_sink_port = 443", "are the same port"),
    ],
)
def test_what_contradicts_a_sink_is_refused(more: str, said: str) -> None:
    with pytest.raises(DeploySettingsError, match=said):
        read_settings(deployed(more))


def test_without_a_sink_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deploy.toml").write_text(deployed())
    assert main(["sink", "--settings", str(tmp_path / "deploy.toml")]) == 2
    assert "no mail sink" in capsys.readouterr().err
    assert not [file for file in render(read_settings(deployed()), Installed()) if "sink" in file.path]


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not part of the wheel")
def test_the_page_names_commands_settings_and_masks_that_exist() -> None:
    for language in ("en", "ja"):
        text = (DOCS / language / "how-to" / "staging.md").read_text("utf-8")
        commands = re.findall(r"(?m)^(mks-deploy .*)$", text) + re.findall(
            r"(?m)^\| `(mks-deploy [^`]+)`", text
        )
        assert len(commands) == 11
        for command in commands:
            parser().parse_args(shlex.split(command)[1:])
        settings, masks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        assert read_settings(deployed(settings)).upkeep.mail_sink
        assert len(read_mask_table(masks).columns) == 4
        assert all(f"`{name}`" in text for name in MASKS)

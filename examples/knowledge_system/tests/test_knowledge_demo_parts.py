"""The pieces of the demonstration one by one: sink, local authority, movable clock, environment, redirect."""

from __future__ import annotations

import os
import smtplib
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system.console import progress
from knowledge_system.demo.certificate_authority import ensure_certificates
from knowledge_system.demo.clock import MovableClock
from knowledge_system.demo.environment import Ports, demo_environment, worker_numbers
from knowledge_system.demo.sink import KEPT, MAX_MESSAGE, Outbox, Sink, read_messages
from knowledge_system.settings import AppSettings
from mks_hardening.testing import FrozenClock

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[Sink, Path]]:
    with Sink(tmp_path / "sink", clock=FrozenClock()) as running:
        yield running, tmp_path / "sink"


def mail(subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@knowledge.example", "b@knowledge.example", subject
    message.set_content(text)
    return message


def test_mail_arrives_with_japanese_and_lone_dots(sink: Any) -> None:
    running, folder = sink
    with smtplib.SMTP("127.0.0.1", running.smtp_port, timeout=5) as client:
        client.send_message(mail("異常のお知らせ", "一行目\n.\n..二\n最後"))
        client.send_message(mail("二通目", "x"))
    newest, first = read_messages(folder)
    assert newest["subject"] == "二通目"
    assert first["subject"] == "異常のお知らせ"
    assert first["text"].split() == ["一行目", ".", "..二", "最後"]
    assert first["to"] == ["b@knowledge.example"]


def test_the_smtp_server_survives_nonsense(sink: Any) -> None:
    running, folder = sink
    with smtplib.SMTP("127.0.0.1", running.smtp_port, timeout=5) as client:
        assert client.docmd("WHAT")[0] == 502
        assert client.docmd("DATA")[0] == 503
        assert client.helo()[0] == 250
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
        client.sendmail("a@x.example", ["b@x.example"], b"no header at all \xff\xfe")
        with pytest.raises(smtplib.SMTPDataError):
            client.sendmail("a@x.example", ["b@x.example"], b"x" * (MAX_MESSAGE + 10))
        client.send_message(mail("あとも動く", "x"))
    with socket.create_connection(("127.0.0.1", running.smtp_port), timeout=5) as raw:
        raw.sendall(b"\xff\xfe\x00" * 3000 + b"\r\n")
    assert read_messages(folder)[0]["subject"] == "あとも動く"


def test_chat_messages_are_kept_and_nonsense_is_refused(sink: Any) -> None:
    running, folder = sink
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "*詳細*"}}
    answer = requests.post(running.webhook_url, json={"text": "異常", "blocks": [block]}, timeout=5)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert read_messages(folder)[0]["text"] == "異常\n*詳細*"
    assert requests.post(running.webhook_url, data=b"{", timeout=5).status_code == 400
    assert requests.post(running.webhook_url, data=b"", timeout=5).status_code == 413
    assert requests.get(running.webhook_url, timeout=5).status_code == 501


def test_the_outbox_keeps_the_newest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, clock=FrozenClock())
    for number in range(KEPT + 5):
        outbox.deliver("mail", {"subject": str(number), "text": ""})
    kept = [message["subject"] for message in read_messages(tmp_path, limit=1000)]
    assert kept == [str(number) for number in reversed(range(5, KEPT + 5))]
    assert read_messages(tmp_path / "nowhere") == []


def test_certificates_are_made_once_and_renewed_in_time(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    first = ensure_certificates(folder, now=NOW)
    made = {path: path.read_bytes() for path in folder.iterdir()}
    ensure_certificates(folder, now=NOW + timedelta(days=300))
    assert {path: path.read_bytes() for path in folder.iterdir()} == made
    ensure_certificates(folder, now=NOW + timedelta(days=380))
    assert first.ca_file.read_bytes() == made[first.ca_file]
    assert first.cert_file.read_bytes() != made[first.cert_file]
    ensure_certificates(folder, now=NOW + timedelta(days=1800))
    assert first.ca_file.read_bytes() != made[first.ca_file]


def test_the_certificate_is_for_this_machine_and_keys_are_private(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, now=NOW)
    certificate = x509.load_pem_x509_certificate(files.cert_file.read_bytes())
    authority = x509.load_pem_x509_certificate(files.ca_file.read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    for key in (files.key_file, tmp_path / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@given(st.lists(st.floats(0, 86_400), max_size=20))
def test_the_movable_clock_runs_ahead_for_every_process(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float]
) -> None:
    file = tmp_path_factory.mktemp("clock") / "offset"
    base = FrozenClock()
    one, two = MovableClock(base, file=file), MovableClock(base, file=file)
    for step in steps:
        before = two.time(), two.monotonic()
        one.advance(step)
        assert (two.time() - before[0], two.monotonic() - before[1]) == pytest.approx((step, step), abs=1e-3)
    assert MovableClock(base, file=file).offset == pytest.approx(sum(steps))


def test_the_movable_clock_never_runs_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="forwards"):
        MovableClock(FrozenClock(), file=tmp_path / "offset").advance(-1)


def test_the_environment_is_completed_and_what_was_set_stays(tmp_path: Path) -> None:
    ports = Ports(9443, 9080)
    plain = demo_environment({}, data_dir=tmp_path / "a", ports=ports)
    settings = AppSettings.from_env(plain)
    assert settings.demo
    assert not settings.hardening.wsgi.hsts
    assert settings.hardening.wsgi.https_port == 9443
    assert settings.hardening.core.redis_url is None
    again = demo_environment({}, data_dir=tmp_path / "a", ports=ports)
    assert again == plain
    assert stat.S_IMODE((tmp_path / "a" / "secret.key").stat().st_mode) == 0o600
    given_variables = {
        "DATABASE_URL": "postgresql+psycopg://db/x",
        "MKS_LOG_LEVEL": "WARNING",
        "MKS_SMTP_HOST": "",
    }
    own = demo_environment(given_variables, data_dir=tmp_path / "b", ports=ports)
    assert own["DATABASE_URL"] == "postgresql+psycopg://db/x"
    assert own["MKS_LOG_LEVEL"] == "WARNING"
    assert "MKS_SMTP_HOST" not in own


@pytest.mark.parametrize(
    ("given_variables", "workers"),
    [
        ({}, "1"),
        ({"MKS_REDIS_URL": "redis://x"}, "2"),
        ({"MKS_REDIS_URL": "redis://x", "MKS_GUNICORN_WORKERS": "4"}, "4"),
    ],
)
def test_more_workers_only_with_redis(given_variables: dict[str, str], workers: str) -> None:
    assert worker_numbers(given_variables)["MKS_GUNICORN_WORKERS"] == workers


def test_progress_is_shown_in_the_end_and_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    show = progress("記事")
    show(1, 3)
    show(3, 3)
    assert capsys.readouterr().out == "  記事: 3 / 3\n"


def test_the_plain_port_only_redirects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from werkzeug.test import Client

    from knowledge_system.demo import redirect

    for name in [name for name in os.environ if name.startswith("MKS_")]:
        monkeypatch.delenv(name)
    for name, value in demo_environment({}, data_dir=tmp_path, ports=Ports(9443, 9080)).items():
        monkeypatch.setenv(name, value)
    client = Client(redirect.from_env())
    answer = client.get("/articles?q=1", base_url="http://localhost:9080")
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://localhost:9443/articles?q=1")
    assert client.get("/", base_url="http://evil.example").status_code == 400

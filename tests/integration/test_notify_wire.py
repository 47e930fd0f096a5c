"""What broken wires and odd servers do to a delivery, beyond the scenarios of the corpus."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify import (
    AlertPolicy,
    EmailNotificationHandler,
    NotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from mks_hardening.notify.message import AlertMessage
from mks_hardening.notify.smtp_transport import SmtpTransport
from testbed.certificates import Certificates
from testbed.fault_proxy import FaultProxy
from testbed.http_sink import Answer, HttpSink
from testbed.smtp_server import SmtpServer

ONCE = AlertPolicy(retries=0, rate=1000)
MAIL: dict[str, Any] = {"security": "plain", "from_addr": "mks@example.com", "to_addrs": "ops@example.com"}


@pytest.fixture
def opened() -> Iterator[list[NotificationHandler]]:
    handlers: list[NotificationHandler] = []
    yield handlers
    for handler in handlers:
        handler.close(0.2)


def log_to(handler: NotificationHandler) -> logging.Logger:
    log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
    log.addHandler(handler)
    return log


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        ({}, "delivered"),
        ({"latency": 0.01}, "delivered"),
        ({"trickle": 0.05}, "spooled"),  # byte by byte, each well inside the time-out of one read
        ({"mode": "black_hole"}, "spooled"),
        ({"mode": "reset"}, "spooled"),
        ({"mode": "half_close"}, "spooled"),
        ({"mode": "corrupt"}, "spooled"),
    ],
    ids=str,
)
@pytest.mark.parametrize("channel", ["email", "webhook"])
def test_a_bad_wire_ends_within_the_time_out(  # noqa: PLR0917 - fixtures
    smtp_server: SmtpServer,
    http_sink: HttpSink,
    make_fault_proxy: Callable[[str, int], FaultProxy],
    tmp_path: Path,
    opened: list[NotificationHandler],
    channel: str,
    trouble: dict[str, Any],
    outcome: str,
) -> None:
    server = smtp_server if channel == "email" else http_sink
    proxy = make_fault_proxy(server.host, server.port)
    for name, value in trouble.items():
        setattr(proxy, name, value)
    options: dict[str, Any] = {"timeout": 0.6, "policy": ONCE, "spool": tmp_path / "spool"}
    if channel == "email":
        opened.append(EmailNotificationHandler(proxy.host, smtp_port=proxy.port, **MAIL, **options))
    else:
        opened.append(WebhookNotificationHandler(f"http://{proxy.host}:{proxy.port}/", **options))
    log_to(opened[0]).error("x")
    assert opened[0].flush(20)
    assert getattr(opened[0].stats(), outcome) == 1


def test_a_receiver_can_verify_the_signature(http_sink: HttpSink, opened: list[NotificationHandler]) -> None:
    secret = "a secret of the receiver"
    http_sink.answer(Answer(status=503))
    opened.append(
        WebhookNotificationHandler(http_sink.url, secret=secret, policy=AlertPolicy(backoff=0.01, rate=1000))
    )
    log_to(opened[0]).error("x")
    assert opened[0].flush(10)
    assert len(http_sink.requests) == 2
    for request in http_sink.requests:
        signed = b"v1:" + request.headers["X-MKS-Timestamp"].encode() + b":" + request.body
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        assert request.headers["X-MKS-Signature"] == f"v1={expected}"


def test_proxies_and_credentials_of_the_environment_are_not_used(
    http_sink: HttpSink, opened: list[NotificationHandler], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login mks password hunter22\n")
    monkeypatch.setenv("NETRC", str(netrc))
    opened.append(SlackNotificationHandler(http_sink.url + "/services/x", policy=ONCE))
    log_to(opened[0]).error("x")
    assert opened[0].flush(10)
    assert "Authorization" not in http_sink.requests[0].headers
    assert http_sink.requests[0].path == "/services/x"


def test_the_address_of_a_webhook_is_in_no_report(
    http_sink: HttpSink,
    opened: list[NotificationHandler],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    http_sink.answer(
        Answer(status=404),
        Answer(status=302, headers={"Location": "/elsewhere"}),
        Answer(drop=True),
        Answer(raw=b"nonsense"),
    )
    opened.append(
        SlackNotificationHandler(
            http_sink.url + "/services/hunter22", policy=ONCE, spool=tmp_path / "spool", timeout=1
        )
    )
    log = log_to(opened[0])
    for name in "abcd":
        log.error(name)
    opened[0].flush(10)
    http_sink.stop()
    log.error("e")
    opened[0].flush(10)
    opened[0].close(1)
    written = capfd.readouterr()
    files = "".join(file.read_text() for file in (tmp_path / "spool").iterdir())
    assert opened[0].stats().spooled == 5
    assert "hunter22" not in caplog.text + written.out + written.err + files


def transport(server: SmtpServer, **options: Any) -> SmtpTransport:
    known: dict[str, Any] = {
        "security": "plain",
        "loopback_only": True,
        "context": None,
        "username": None,
        "password": None,
        "sender": "mks@example.com",
        "recipients": ["a@example.com", "b@example.com"],
        "timeout": 5,
        **options,
    }
    return SmtpTransport(server.host, server.port, **known)


MESSAGE = AlertMessage("m1", "subject", "text", {}, b"Subject: x\r\n\r\ntext\r\n")


def test_each_recipient_gets_one_copy_however_often_it_takes(smtp_server: SmtpServer) -> None:
    smtp_server.answer("RCPT", "450 4.2.0 greylisted")  # the first recipient only
    way = transport(smtp_server)
    with pytest.raises(DeliveryError, match="some-recipients-deferred") as caught:
        way.send(MESSAGE)
    assert caught.value.temporary
    way.send(MESSAGE)
    assert [mail.rcpt_tos for mail in smtp_server.received] == [("b@example.com",), ("a@example.com",)]
    way.send(MESSAGE._replace(id="m2"))
    assert smtp_server.received[-1].rcpt_tos == ("a@example.com", "b@example.com")


def test_a_deferred_recipient_of_another_message_is_not_mixed_up(smtp_server: SmtpServer) -> None:
    smtp_server.answer("RCPT", "450 4.2.0 greylisted")
    way = transport(smtp_server)
    with pytest.raises(DeliveryError):
        way.send(MESSAGE)
    way.send(MESSAGE._replace(id="m2"))
    assert smtp_server.received[-1].rcpt_tos == ("a@example.com", "b@example.com")


def test_a_name_that_leads_away_from_this_machine_is_not_spoken_to_in_clear(
    smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mks_hardening.notify.smtp_transport.is_loopback", lambda _: False)
    with pytest.raises(DeliveryError, match="plaintext") as caught:
        transport(smtp_server).send(MESSAGE)
    assert not caught.value.temporary
    assert smtp_server.commands in ([], ["QUIT"])
    transport(smtp_server, loopback_only=False).send(MESSAGE)
    assert len(smtp_server.received) == 1


def test_a_message_too_large_for_the_server_is_refused_for_good(make_smtp: Callable[..., SmtpServer]) -> None:
    with pytest.raises(DeliveryError, match="smtp-552") as caught:
        transport(make_smtp(max_size=10)).send(MESSAGE)
    assert not caught.value.temporary


def test_the_name_of_this_machine_is_not_told(
    smtp_server: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mail.log")
    transport(smtp_server).send(MESSAGE)
    assert "[127.0.0.1]" in caplog.text


def test_a_japanese_mail_arrives_as_it_was_written(
    make_smtp: Callable[..., SmtpServer], certificates: Certificates, opened: list[NotificationHandler]
) -> None:
    server = make_smtp(security="starttls")
    opened.append(
        EmailNotificationHandler(
            "localhost",
            smtp_port=server.port,
            from_addr="建設ナレッジ <mks@example.com>",
            to_addrs=["現場監督 <site@example.com>"],
            ca_file=str(certificates.ca_file),
            environment="production",
            policy=ONCE,
        )
    )
    text = "コンクリート打設記録の保存に失敗しました。" * 12
    log_to(opened[0]).error(text)
    assert opened[0].flush(10)
    mail = server.received[0].message
    assert str(mail["Subject"]).startswith("[MKS][production] ERROR: コンクリート打設記録の保存に失敗")
    assert str(mail["Subject"]).endswith("…")
    assert len(str(mail["Subject"])) == 200
    assert str(mail["From"]) == "建設ナレッジ <mks@example.com>"
    assert str(mail["To"]) == "現場監督 <site@example.com>"
    assert text in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]  # always there
    assert server.received[0].over_tls


def test_slack_takes_the_json(http_sink: HttpSink, opened: list[NotificationHandler]) -> None:
    opened.append(SlackNotificationHandler(http_sink.url, policy=ONCE))
    log_to(opened[0]).error("x")
    assert opened[0].flush(10)
    request = http_sink.requests[0]
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(request.body)["blocks"]

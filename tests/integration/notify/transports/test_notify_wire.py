"""What broken wires and odd servers do to a delivery, beyond the scenarios of the corpus."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.mail.smtp_session import SmtpSession, _DeadlineSMTP, _Utf8
from mks_hardening.exceptions import ConfigurationError, DeliveryError
from mks_hardening.notify import (
    AlertPolicy,
    EmailNotificationHandler,
    NotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from mks_hardening.notify.engine._alert import AlertMessage
from mks_hardening.notify.transports._http_transport import HttpTransport
from mks_hardening.notify.transports._smtp_transport import SmtpTransport
from mks_hardening.protocols import Transport
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
    return smtp_transport(server.host, server.port, **options)


def http_transport(url: str, *, ca_file: str | None = None, timeout: float = 5) -> HttpTransport:
    return HttpTransport(
        url,
        parameter="url",
        timeout=timeout,
        secret=None,
        ca_file=ca_file,
        ssl_context=None,
        allow_plaintext=False,
        clock=SYSTEM_CLOCK,
    )


def smtp_transport(host: str, port: int, **options: Any) -> SmtpTransport:
    known: dict[str, Any] = {
        "security": "plain",
        "loopback_only": True,
        "context": None,
        "username": None,
        "password": None,
        "timeout": 5,
        **options,
    }
    recipients = known.pop("recipients", ["a@example.com", "b@example.com"])
    return SmtpTransport(SmtpSession(host, port, **known), sender="mks@example.com", recipients=recipients)


def test_user_and_password_may_have_any_letters(make_smtp: Callable[..., SmtpServer]) -> None:
    server = make_smtp(users={"büro": "pässwört合言葉"})
    known = {"username": "büro", "password": "pässwört合言葉"}
    smtp_transport(server.host, server.port, **known).send(MESSAGE)
    assert [mail.user for mail in server.received] == ["büro"]


def test_they_may_with_other_mechanisms_too(make_smtp: Callable[..., SmtpServer]) -> None:
    server = make_smtp(users={"büro": "pässwört合言葉"})
    client = _DeadlineSMTP(server.host, server.port)
    client.ehlo()
    client.user, client.password = "büro", _Utf8("pässwört合言葉")
    assert client.auth("LOGIN", client.auth_login)[0] == 235
    assert client.auth_cram_md5(b"<1@x>").startswith("büro ")
    client.quit()


def test_a_password_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="password must be text that can be encoded as UTF-8"):
        EmailNotificationHandler(
            "localhost",
            from_addr="a@b.c",
            to_addrs="a@b.c",
            username="x",
            password="\udc80",
            security="plain",
        )


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


def test_a_recipient_who_is_refused_for_good_is_reported_and_not_asked_again(smtp_server: SmtpServer) -> None:
    smtp_server.answer("RCPT", "550 5.1.1 unknown")  # the first recipient only
    way = transport(smtp_server)
    with pytest.raises(DeliveryError, match="smtp-550 for 1 of 2 recipients") as caught:
        way.send(MESSAGE)
    assert (caught.value.partial, caught.value.temporary) == (True, False)
    assert [mail.rcpt_tos for mail in smtp_server.received] == [("b@example.com",)]


@pytest.mark.parametrize(
    ("tries", "partial", "copies"),
    [
        ([("450 later", "550 no", None), (None,)], True, [("c@x.org",), ("a@x.org",)]),
        ([("450 later", None, None), ("550 no",)], True, [("b@x.org", "c@x.org")]),
        ([("450 later", "550 no", "550 no"), ("550 no",)], False, []),
        ([("450 later", "450 later", "450 later"), ("550 no", "550 no", None)], True, [("c@x.org",)]),
    ],
    ids=["refused, then deferred one gets it", "deferred, then refused", "all refused", "all deferred first"],
)
def test_what_became_of_each_recipient_is_kept_over_the_tries(
    smtp_server: SmtpServer, tries: list[tuple[str | None, ...]], partial: bool, copies: list[tuple[str, ...]]
) -> None:
    way = transport(smtp_server, recipients=["a@x.org", "b@x.org", "c@x.org"])
    for number, replies in enumerate(tries):
        for reply in replies:
            smtp_server.answer("RCPT", reply)
        with pytest.raises(DeliveryError) as caught:
            way.send(MESSAGE)
        assert caught.value.temporary is (number == 0)
    assert caught.value.partial is partial
    assert [mail.rcpt_tos for mail in smtp_server.received] == copies


def test_one_recipient_refused_counts_as_delivered_and_is_reported_once(
    smtp_server: SmtpServer, opened: list[NotificationHandler], caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {**MAIL, "to_addrs": ["a@example.com", "b@example.com"]}
    opened.append(
        EmailNotificationHandler(smtp_server.host, smtp_port=smtp_server.port, policy=ONCE, **options)
    )
    log = log_to(opened[0])
    for name in "ab":
        smtp_server.answer("RCPT", "550 5.1.1 unknown")
        log.error(name)
        assert opened[0].flush(10)
    assert opened[0].stats().delivered == 2
    assert (
        caplog.text.count("email: an alert did not reach all recipients (smtp-550 for 1 of 2 recipients)")
        == 1
    )


def test_one_recipient_who_is_deferred_for_long_costs_the_others_no_copies(
    smtp_server: SmtpServer,
    opened: list[NotificationHandler],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {**MAIL, "to_addrs": ["a@example.com", "b@example.com"], "spool": tmp_path}
    policy = AlertPolicy(dedup_window=0, retries=1, backoff=0.01, backoff_max=0.02, rate=1000)
    for start in range(2):  # the second one has nothing to replay
        opened.append(
            EmailNotificationHandler(smtp_server.host, smtp_port=smtp_server.port, policy=policy, **options)
        )
        log = log_to(opened[-1])
        for name in ("first", "second"):
            for reply in (None, "452 4.2.2 full", "452 4.2.2 full"):
                smtp_server.answer("RCPT", reply)
            log.error("%s %s", name, start)
            assert opened[-1].flush(10)
        assert opened[-1].stats().delivered == 2
        opened[-1].close()
        log.removeHandler(opened[-1])
    assert [mail.rcpt_tos for mail in smtp_server.received] == [("a@example.com",)] * 4
    assert list(tmp_path.rglob("*.json")) == []
    assert "did not reach all recipients (some-recipients-deferred)" in caplog.text


@pytest.mark.parametrize("channel", ["email", "webhook"])
@pytest.mark.parametrize(
    ("code", "reason", "temporary"),
    [(socket.EAI_NONAME, "unknown-host", False), (socket.EAI_AGAIN, "dns", True)],
)
def test_faults_of_name_resolution_are_named(
    monkeypatch: pytest.MonkeyPatch, channel: str, code: int, reason: str, temporary: bool
) -> None:
    def getaddrinfo(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(code, "of the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    way: Transport = http_transport("https://hooks.example.com/")
    if channel == "email":
        way = smtp_transport("smtp.example.com", 587, security="starttls")
    with pytest.raises(DeliveryError) as caught:
        way.send(MESSAGE)
    assert (caught.value.reason, caught.value.temporary) == (reason, temporary)


@pytest.mark.parametrize("channel", ["email", "webhook"])
@pytest.mark.parametrize("host", ["smtp..example.com", "a" * 64 + ".example.com"])
def test_a_name_that_no_host_can_have_is_refused_for_good(channel: str, host: str) -> None:
    way: Transport = http_transport(f"https://{host}/")
    if channel == "email":
        way = smtp_transport(host, 587, security="starttls")
    with pytest.raises(DeliveryError) as caught:
        way.send(MESSAGE)
    assert (caught.value.reason, caught.value.temporary) == ("unknown-host", False)


@pytest.mark.parametrize("channel", ["email", "webhook"])
def test_a_resolver_that_does_not_answer_holds_a_delivery_no_longer_than_its_time_out(
    monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object, flags: int = 0, **__: object) -> NoReturn:
        if flags != socket.AI_NUMERICHOST:
            answered.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "of the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    way: Transport = http_transport("https://slow.example.com/", timeout=0.2)
    if channel == "email":
        way = smtp_transport("slow.example.com", 587, security="starttls", timeout=0.2)
    with pytest.raises(DeliveryError) as caught:
        way.send(MESSAGE)
    assert (caught.value.reason, caught.value.temporary) == ("timeout", True)
    assert not answered.is_set()
    answered.set()


@pytest.mark.parametrize("channel", ["email", "webhook"])
@pytest.mark.parametrize("kind", ["expired", "other-host", "unknown"])
def test_faults_of_certificates_are_named_and_permanent(
    make_smtp: Callable[..., SmtpServer],
    make_http_sink: Callable[..., HttpSink],
    certificates: Certificates,
    channel: str,
    kind: str,
) -> None:
    if channel == "email":
        server = make_smtp(security="tls")
        server.stop()
        server.certificates = SimpleNamespace(server_context=certificates.spoilt_context(kind))  # type: ignore[assignment]  # what is used of them
        server.start()
        way: Transport = smtp_transport(
            "localhost", server.port, security="tls", context=certificates.client_context
        )
    else:
        sink = make_http_sink(tls=True)
        sink.server_context = certificates.spoilt_context(kind)
        way = http_transport(sink.url, ca_file=str(certificates.ca_file))
    with pytest.raises(DeliveryError) as caught:
        way.send(MESSAGE)
    assert (caught.value.reason, caught.value.temporary) == ("certificate", False)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("ok", "delivered"),
        ("ok\n", "delivered"),
        ("", "spooled"),
        ("<html>please sign in</html>", "spooled"),
        ("invalid_payload", "spooled"),
    ],
)
def test_slack_says_ok_itself(
    http_sink: HttpSink, opened: list[NotificationHandler], tmp_path: Path, body: str, outcome: str
) -> None:
    http_sink.default = Answer(body=body)
    opened.append(
        SlackNotificationHandler(http_sink.url, policy=AlertPolicy(rate=1000), spool=tmp_path / "s")
    )
    log_to(opened[0]).error("x")
    assert opened[0].flush(10)
    assert getattr(opened[0].stats(), outcome) == 1
    assert len(http_sink.requests) == 1  # nobody gets it twice


def test_a_webhook_may_say_anything(http_sink: HttpSink, opened: list[NotificationHandler]) -> None:
    http_sink.default = Answer(status=204, body="")
    opened.append(WebhookNotificationHandler(http_sink.url, policy=ONCE))
    log_to(opened[0]).error("x")
    assert opened[0].flush(10)
    assert opened[0].stats().delivered == 1


def test_a_name_that_leads_away_from_this_machine_is_not_spoken_to_in_clear(
    smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mks_hardening._core.mail.smtp_session.is_loopback", lambda _: False)
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

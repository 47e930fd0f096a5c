from __future__ import annotations

import json
import re
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.engine._alert import Alert, AlertMessage, OutgoingMessage
from mks_hardening.notify.layouts._email_layout import EmailLayout
from mks_hardening.notify.layouts._plain_text import Layout, one_line, when
from mks_hardening.notify.layouts._slack_layout import SlackLayout, escaped
from mks_hardening.notify.layouts._webhook_layout import WebhookLayout

ALERT = Alert(
    id="a1",
    fingerprint="f" * 32,
    created=1_700_000_000.25,
    level="ERROR",
    logger="app.orders",
    message="order 4711 failed",
    place="/srv/app.py:7 run",
    exception='Traceback (most recent call last):\n  File "app.py"\nValueError: bad',
    request_id="req-1",
    fields={"site": "B棟", "user_id": "u7"},
    host="web1",
    environment="production",
)
DIGEST = ALERT._replace(id="d1", digest=True, repeats=9999, since=1_700_000_000.0, created=1_700_000_100.0)


def parcel(*alerts: Alert) -> OutgoingMessage:
    return OutgoingMessage(alerts[0].id if len(alerts) == 1 else "sum1", alerts)


def email(*alerts: Alert, lang: Any = "en", prefix: str = "[MKS]") -> tuple[AlertMessage, EmailMessage]:
    render = EmailLayout(
        Layout(lang),
        sender=Address("MKS", addr_spec="mks@example.com"),
        recipients=[Address(addr_spec="a@example.com"), Address("運用", addr_spec="b@example.com")],
        subject_prefix=prefix,
    )
    message = render(parcel(*alerts))
    assert message == render(parcel(*alerts))
    parsed = message_from_bytes(message.body, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return message, parsed


def slack(*alerts: Alert, lang: Any = "en", channel: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SlackLayout(Layout(lang), channel=channel)(parcel(*alerts)).body)
    return document


# --- words


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lang must be one of en, ja"):
        Layout("de")  # type: ignore[arg-type]  # on purpose


def test_both_languages_have_all_words() -> None:
    english, japanese = Layout("en").words, Layout("ja").words
    assert all(english)
    assert all(re.search(r"[ぁ-んァ-ン一-龥]", word) for word in japanese)
    for one, other in zip(english, japanese, strict=True):
        assert set(re.findall(r"{\w+}", one)) == set(re.findall(r"{\w+}", other))


@pytest.mark.parametrize(
    ("alerts", "headline"),
    [
        ([ALERT], "ERROR: order 4711 failed"),
        ([ALERT._replace(message="one\ntwo\n")], "ERROR: one two"),
        ([DIGEST], "ERROR: order 4711 failed (x9999)"),
        ([ALERT, DIGEST], "2 alerts: ERROR: order 4711 failed"),
    ],
)
def test_headlines(alerts: list[Alert], headline: str) -> None:
    assert Layout("en").headline(alerts) == headline


def test_the_text_of_an_alert() -> None:
    text = Layout("en").text([ALERT])
    assert text.startswith("order 4711 failed\n\nLevel: ERROR\nTime: 2023-11-14 ")
    for line in (
        "Environment: production",
        "Host: web1",
        "Logger: app.orders",
        "Request ID: req-1",
        "Count: 1",
    ):
        assert f"\n{line}\n" in text
    assert "site: B棟" in text
    assert text.endswith("ValueError: bad")


def test_the_text_of_a_digest_tells_how_many_and_when() -> None:
    text = Layout("ja").text([DIGEST])
    assert re.search(r"2023-11-1\d .* から 2023-11-1\d .* までに 9999 件抑制しました", text)
    assert "件数: 9999" in text


def test_an_alert_may_tell_of_repetitions_before_it() -> None:
    assert "12 more like this were suppressed before" in Layout("en").text([ALERT._replace(repeats=12)])


def test_a_summary_leaves_exceptions_out() -> None:
    text = Layout("en").text([ALERT, ALERT._replace(message="second")])
    assert "order 4711 failed" in text
    assert "second" in text
    assert "Traceback" not in text


def test_what_is_not_known_is_left_out() -> None:
    labels = [label for label, _ in Layout("en").facts(Alert("i", "f", 0.0, "ERROR", "app", "m"))]
    assert labels == ["Level", "Time", "Logger", "Count"]


@pytest.mark.parametrize("moment", [1e300, -1e300, float("inf")])
def test_impossible_times_are_shown_as_numbers(moment: float) -> None:
    assert when(moment) == str(moment)


def test_one_line() -> None:
    assert one_line(" a\n b\tc ", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"


# --- e-mail


def test_an_email_has_text_and_html_and_the_right_headers() -> None:
    message, mail = email(ALERT)
    assert mail["Subject"] == "[MKS][production] ERROR: order 4711 failed"
    assert mail["From"] == "MKS <mks@example.com>"
    assert mail["To"] == "a@example.com, 運用 <b@example.com>"
    assert mail["Message-ID"] == "<a1@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.timestamp() == 1_700_000_000
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]  # asserted above
    assert text.splitlines() == message.text.splitlines()
    html = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]  # asserted above
    assert "order 4711 failed" in html
    assert "B棟" in html


def test_the_bytes_are_plain_ascii_lines() -> None:
    message, _ = email(ALERT._replace(message="障害" * 2000))
    assert message.body.isascii()
    assert max(len(line) for line in message.body.split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    "message",
    ["x" * 5000, "障" * 5000, "👷" * 5000, "a " * 2000, "=?utf-8?q?x?=" * 100, "\u3000" * 500, "%s" * 200],
)
def test_subjects_are_bounded(message: str) -> None:
    rendered, mail = email(ALERT._replace(message=message, environment="e" * 40), prefix="[" + "p" * 58 + "]")
    assert len(str(mail["Subject"])) <= 200
    assert len(rendered.subject) <= 200


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\r\n ", "\n\n", "\x0b", "\x1c", "\x85", "\u2028"])
def test_nothing_becomes_a_header(end: str) -> None:
    evil = f"oops{end}Bcc: evil@example.org{end}{end}body"
    message, mail = email(
        ALERT._replace(message=evil, level=f"ERROR{end}X-Evil: 1", environment=f"p{end}X: 1")
    )
    assert sorted({name.lower() for name in mail}) == sorted(
        [
            "subject",
            "from",
            "to",
            "date",
            "message-id",
            "auto-submitted",
            "x-alert-fingerprint",
            "mime-version",
            "content-type",
        ]
    )
    assert mail.get_body(("plain",)) is not None
    assert "\n" not in message.subject


def test_html_is_escaped_everywhere() -> None:
    evil = "<img src=x onerror=alert(1)>"
    names = ("message", "level", "logger", "place", "exception", "request_id", "host", "environment")
    _, mail = email(ALERT._replace(**dict.fromkeys(names, evil), fields={evil: evil}))
    html = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]  # always there
    assert "<img" not in html
    assert html.count("&lt;img") >= 10


def test_a_summary_is_one_mail() -> None:
    message, mail = email(*[ALERT._replace(message=f"trouble {number}") for number in range(40)])
    assert mail["Subject"] == "[MKS][production] 40 alerts: ERROR: trouble 0"
    assert mail["Message-ID"] == "<sum1@example.com>"
    assert all(f"trouble {number}" in message.text for number in range(40))


# --- Slack


def test_a_slack_message_has_header_text_facts_exception_and_details() -> None:
    document = slack(ALERT)
    kinds = [block["type"] for block in document["blocks"]]
    assert kinds == ["header", "section", "section", "section", "section"]
    assert document["blocks"][0]["text"] == {"type": "plain_text", "text": "ERROR [production]"}
    assert document["blocks"][1]["text"]["text"] == "```order 4711 failed```"
    assert {"type": "mrkdwn", "text": "*Request ID*\nreq-1"} in document["blocks"][2]["fields"]
    assert "ValueError: bad" in document["blocks"][3]["text"]["text"]
    assert "site: B棟" in document["blocks"][4]["text"]["text"]
    assert document["text"] == "ERROR: order 4711 failed"
    assert "channel" not in document


def test_a_channel_is_named_when_given() -> None:
    assert slack(ALERT, channel="#ops")["channel"] == "#ops"


def test_a_slack_digest_tells_the_number() -> None:
    assert "9999" in slack(DIGEST, lang="ja")["blocks"][2]["text"]["text"]


def test_slack_shows_the_facts_of_each_of_several_alerts_in_one_line() -> None:
    blocks = slack(ALERT, ALERT._replace(message="again", request_id=""))["blocks"]
    texts = [block["text"]["text"] for block in blocks if "failed" in str(block) or "again" in str(block)]
    for text, message in zip(texts[-2:], ("order 4711 failed", "again"), strict=True):
        first, facts = text.splitlines()[0], text.splitlines()[-1]
        assert first == f"ERROR: {message}"
        assert facts.split(" | ")[0] == "ERROR"
        assert facts.split(" | ")[2:4] == ["production", "web1"]
        assert ("req-1" in facts.split(" | ")) is (message != "again")


def test_a_slack_summary_has_one_block_an_alert() -> None:
    document = slack(*[ALERT._replace(message=f"trouble {number} " + "x" * 500) for number in range(40)])
    assert len(document["blocks"]) == 41
    assert document["blocks"][0]["text"]["text"] == "40 alerts [production]"
    assert all(f"trouble {number} " in document["blocks"][number + 1]["text"]["text"] for number in range(40))


@pytest.mark.parametrize(
    ("text", "limit", "result"),
    [
        ("a<b>&c", 100, "a&lt;b&gt;&amp;c"),
        ("<!channel>", 100, "&lt;!channel&gt;"),
        ("&lt;", 100, "&amp;lt;"),
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab<<<<", 6, "ab…"),
        ("a&&&&&", 6, "a…"),
        ("&&&&&&", 8, "&amp;…"),
        ("x;<<<<", 7, "x;&lt;…"),
        ("```x", 9, "'''x"),
    ],
)
def test_escaping_for_slack(text: str, limit: int, result: str) -> None:
    assert escaped(text, limit) == result


# --- webhook


def test_the_webhook_document() -> None:
    message = WebhookLayout(Layout("en"))(parcel(ALERT, DIGEST))
    document = json.loads(message.body)
    assert document["version"] == 1
    assert document["id"] == "sum1" == message.headers["Idempotency-Key"]
    assert document["summary"] == "2 alerts: ERROR: order 4711 failed"
    assert document["alerts"][0] == {**ALERT._asdict(), "fields": {"site": "B棟", "user_id": "u7"}}
    assert document["alerts"][1]["repeats"] == 9999


@pytest.mark.parametrize(("length", "shown"), [(2600, "a" * 1299 + "b" + "c" * 1300), (2601, None)])
def test_slack_shows_both_ends_of_a_long_traceback(length: int, shown: str | None) -> None:
    text = "a" * 1299 + "b" * (length - 2599) + "c" * 1300
    (code,) = [
        block["text"]["text"]
        for block in slack(ALERT._replace(exception=text))["blocks"]
        if "aaa" in str(block)
    ]
    assert code == f"```{shown or 'a' * 1299 + 'b' + chr(10) + '…' + chr(10) + 'c' * 1300}```"


def test_header_fields_of_an_email_are_spelled_as_the_standards_spell_them() -> None:
    message, _ = email(ALERT)
    fields = message.body.partition(b"\r\n\r\n")[0].decode("ascii")
    names = re.findall(r"^([\w-]+):", fields, re.MULTILINE)
    assert names == [
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "X-Alert-Fingerprint"),
        *("MIME-Version", "Content-Type"),
    ]
    assert list(message.headers) == names
    assert "Auto-Submitted: auto-generated\r\n" in f"{fields}\r\n"

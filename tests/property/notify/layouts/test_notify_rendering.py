"""Whatever an application logs: messages stay within the limits, harmless, and readable by the other side."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening._core.redaction.redactor import SecretRedactor
from mks_hardening.notify.engine import _alert
from mks_hardening.notify.engine._alert import (
    Alert,
    AlertReader,
    OutgoingMessage,
    fingerprint_of,
    message_without_numbers,
)
from mks_hardening.notify.engine._spool import Spool
from mks_hardening.notify.layouts._email_layout import EmailLayout
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._slack_layout import SlackLayout, escaped
from mks_hardening.notify.layouts._webhook_layout import WebhookLayout
from mks_hardening.notify.transports._http_transport import RETRY_AFTER_CAP, retry_after_seconds
from mks_hardening.testing import FrozenClock

READERS = [
    AlertReader(SecretRedactor(), host=host, environment=environment)
    for host in ("web1", "")
    for environment in ("production", "")
]

nasty = st.text(max_size=40) | st.sampled_from(
    [
        "<!channel>",
        "&" * 4000,
        "<" * 4000,
        "```",
        "\r\nBcc: x@y.z",
        "\ud800",
        "\u202e",
        "\x00",
        "障害" * 3000,
        "",
        "%s %d",
    ]
)
texts = st.lists(nasty, max_size=4).map("".join)


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    """Alerts made the way the handler makes them."""
    record = logging.LogRecord(
        draw(texts),
        logging.ERROR,
        draw(texts),
        draw(st.integers(0, 10**6)),
        draw(texts),
        None,
        None,
        draw(texts),
    )
    record.levelname = draw(texts)
    record.created = draw(st.floats(allow_nan=False, min_value=0, max_value=4e9))
    record.stack_info = draw(st.none() | texts)
    record.__dict__.update(
        draw(st.dictionaries(texts.filter(bool), texts | st.integers() | st.none(), max_size=5))
    )
    reader = draw(st.sampled_from(READERS))
    message = reader.message(record)
    kind = fingerprint_of(record, message)
    taken = reader.snapshot(record, message, kind=kind, repeats=0)
    made = reader.alert(taken, alert_id=draw(st.uuids()).hex)
    return made._replace(repeats=draw(st.integers(0, 10**9)), digest=draw(st.booleans()))


parcels = st.lists(alerts(), min_size=1, max_size=5).map(
    lambda several: OutgoingMessage(several[0].id, tuple(several))
)
languages = st.sampled_from(["en", "ja"])


def blocks_of(document: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for block in document["blocks"]:
        assert block["type"] in ("header", "section")
        if block["type"] == "header":
            assert block["text"]["type"] == "plain_text"
            assert 1 <= len(block["text"]["text"]) <= 150
        elif "fields" in block:
            assert 1 <= len(block["fields"]) <= 10
            assert all(1 <= len(field["text"]) <= 2000 for field in block["fields"])
        else:
            assert 1 <= len(block["text"]["text"]) <= 3000
        found += [block["text"]["text"]] if "text" in block else [field["text"] for field in block["fields"]]
    return found


@given(parcels, languages)
def test_slack_limits_hold_and_nothing_is_acted_on(parcel: OutgoingMessage, lang: Any) -> None:
    body = SlackLayout(Layout(lang), channel=None)(parcel).body
    assert body.isascii()
    document = json.loads(body)
    shown = blocks_of(document)
    assert 2 <= len(document["blocks"]) <= 50
    assert sum(map(len, shown)) <= 13_200
    assert 1 <= len(document["text"]) <= 3000
    for text in (*shown, document["text"]):
        assert not re.search("[<>]", text)
        assert not re.search("&(?!(amp|lt|gt);)", text)
        assert text.count("```") in (0, 2)


@given(texts, st.integers(2, 200))
@example("&" * 300, 150)
@example("0<", 4)
def test_escaping_never_cuts_an_entity(text: str, limit: int) -> None:
    result = escaped(text, limit)
    assert len(result) <= limit
    assert not re.search("[<>]", result)
    assert not re.search("&(?!(amp|lt|gt);)", result)
    text = text.replace("```", "'''")
    plain = result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == text or (plain.endswith("…") and text.startswith(plain[:-1]))


@given(parcels, languages, st.text(st.characters(categories=["L", "N", "P"]), max_size=60))
def test_mails_are_ascii_have_their_headers_and_no_others(
    parcel: OutgoingMessage, lang: Any, prefix: str
) -> None:
    render = EmailLayout(
        Layout(lang),
        sender=Address(addr_spec="mks@example.com"),
        recipients=[Address(addr_spec="ops@example.com")],
        subject_prefix=prefix,
    )
    message = render(parcel)
    assert message == render(parcel)
    assert message.body.isascii()
    mail = message_from_bytes(message.body, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert len(message.subject) <= 200
    # Without blanks: CPython adds one where it folds before a long word.
    assert "".join(str(mail["Subject"]).split()) == "".join(message.subject.split())
    assert mail["To"] == "ops@example.com"
    assert mail["Message-ID"] == f"<{parcel.id}@example.com>"
    assert len(mail.keys()) == 9
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]  # asserted above
    assert text.split() == message.text.split()


@given(parcels, languages)
def test_webhook_documents_are_strict_json(parcel: OutgoingMessage, lang: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(WebhookLayout(Layout(lang))(parcel).body, parse_constant=refuse)
    assert [alert["message"] for alert in document["alerts"]] == [alert.message for alert in parcel.alerts]


@given(alerts())
def test_the_spool_gives_back_what_it_got(tmp_path_factory: Any, alert: Alert) -> None:
    known = Spool(tmp_path_factory.mktemp("spool"), kind="x", destinations=["d"], clock=FrozenClock())
    known.put(alert)
    ((_, back),) = known.lock_entries(1)
    assert back == alert


@given(alerts())
def test_alerts_hold_nothing_unseen_and_are_bounded(alert: Alert) -> None:
    whole = repr(alert._replace(fields={})) + "".join(alert.fields) + "".join(alert.fields.values())
    whole.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", whole)
    assert len(alert.message) <= 8192
    assert len(alert.fields) <= 40


@given(st.text(max_size=60), st.lists(st.integers(0, 10**12), min_size=2, max_size=2))
def test_numbers_make_no_difference(text: str, numbers: list[int]) -> None:
    one, other = (f"{text} {number} {text}" for number in numbers)
    assert message_without_numbers(one) == message_without_numbers(other)


@given(st.text("0x19afgF- \u0663", max_size=400))
def test_the_short_way_to_the_words_leads_to_the_same(text: str) -> None:
    assert message_without_numbers(text) == _alert._NUMBERS.sub("#", text[:300])


@given(st.text() | st.integers().map(str) | st.datetimes(timezones=st.just(UTC)).map(format_datetime))
@example("Wed, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_a_bounded_pause_or_none(value: str) -> None:
    pause = retry_after_seconds(value, now=FrozenClock().time())
    assert pause is None or 0 <= pause <= RETRY_AFTER_CAP


@given(st.integers(-600, 600))
def test_dates_in_retry_after_are_relative_to_now(seconds: int) -> None:
    now = FrozenClock().time()
    value = format_datetime(datetime.fromtimestamp(now + seconds, UTC), usegmt=True)
    assert retry_after_seconds(value, now=now) == min(max(0, seconds), RETRY_AFTER_CAP)

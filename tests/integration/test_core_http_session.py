from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening._core.http_session import HttpSession, check_url
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from testbed.http_sink import Answer, HttpSink

SECRET = "T0SECRET"


def test_post_sends_json_and_returns_the_answer(http_sink: HttpSink) -> None:
    http_sink.answer(Answer(status=202, body="はい", headers={"X-A": "b"}))
    with HttpSession("hook") as session:
        answer = session.post(http_sink.url, json={"text": "鉄筋"}, headers={"X-Sig": "1"})
    assert (answer.status, answer.body.decode(), answer.headers["x-a"]) == (202, "はい", "b")
    request = http_sink.requests[0]
    assert request.json() == {"text": "鉄筋"}
    assert request.headers["X-Sig"] == "1"


def test_redirects_are_not_followed(http_sink: HttpSink) -> None:
    http_sink.answer(Answer(status=302, headers={"Location": http_sink.url + "/elsewhere"}))
    with HttpSession("hook") as session:
        assert session.get(http_sink.url).status == 302
    assert len(http_sink.requests) == 1


def test_the_environment_is_not_trusted(http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HttpSession("hook") as session:
        assert session.get(http_sink.url).status == 200


def test_large_answers_are_cut(http_sink: HttpSink) -> None:
    http_sink.answer(Answer(body=b"x" * 1_000_000))
    with HttpSession("hook") as session:
        assert len(session.get(http_sink.url).body) == 65_536


FAULTS = {
    "slow": (Answer(delay=5), "timeout"),
    "trickling": (Answer(body=b"x" * 1000, trickle=0.05), "timeout"),
    "garbage": (Answer(raw=b"\x00\x01garbage\r\n\r\n"), "reset"),
    "dropped": (Answer(drop=True), "reset"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_typed_error_without_the_url(http_sink: HttpSink, fault: str) -> None:
    answer, reason = FAULTS[fault]
    http_sink.answer(answer)
    with HttpSession("hook", timeout=0.3) as session, pytest.raises(BackendUnavailableError) as caught:
        session.post(f"{http_sink.url}/{SECRET}", json={})
    error = caught.value
    assert error.reason == reason
    assert SECRET not in f"{error!r} {error}"
    assert error.__cause__ is None


def test_refused_means_not_sent() -> None:
    with HttpSession("hook", timeout=1) as session, pytest.raises(BackendUnavailableError) as caught:
        session.get("http://127.0.0.1:1/")
    assert (caught.value.reason, caught.value.sent) == ("refused", False)


def test_certificates_are_verified(make_http_sink: Callable[..., HttpSink]) -> None:
    sink = make_http_sink(tls=True)
    assert sink.certificates is not None
    with HttpSession("hook", timeout=2) as session, pytest.raises(BackendUnavailableError):
        session.get(sink.url)
    with HttpSession("hook", timeout=2, ca_file=str(sink.certificates.ca_file)) as session:
        assert session.get(sink.url).status == 200
    context = sink.certificates.client_context
    with HttpSession("hook", timeout=2, ssl_context=context) as session:
        assert session.get(sink.url).status == 200


URLS: list[tuple[str, dict[str, Any], bool]] = [
    ("https://hooks.example.com/x", {}, True),
    ("http://localhost:8080/x", {}, True),
    ("http://127.0.0.1/x", {}, True),
    ("http://[::1]:80/x", {}, True),
    ("http://example.com/x", {"allow_plaintext": True}, True),
    ("http://example.com/x", {}, False),
    ("http://127.0.0.1.example.com/x", {}, False),
    ("https://user:pw@example.com/", {}, False),
    ("https:///x", {}, False),
    ("ftp://example.com/", {}, False),
    ("https://example.com:99999/", {}, False),
    ("https://exa mple.com/\n", {}, False),
    ("https:\\\\example.com", {}, False),
    ("", {}, False),
]


@pytest.mark.parametrize(("url", "options", "good"), URLS)
def test_addresses_are_checked(url: str, options: dict[str, Any], good: bool) -> None:
    if good:
        assert check_url(url, **options) == url
        return
    with pytest.raises(ConfigurationError) as caught:
        check_url(url, parameter="webhook_url", **options)
    assert caught.value.parameter == "webhook_url"
    assert "pw" not in str(caught.value)

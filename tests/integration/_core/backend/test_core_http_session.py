from __future__ import annotations

import gc
import gzip
import os
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from urllib3.response import HTTPResponse

from mks_hardening._core.backend.http_session import HttpSession, check_url
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from testbed.certificates import Certificates
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


def test_an_answer_is_read_with_what_every_urllib3_has(
    http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with urllib3 1.26 and 2.0, which the lowest versions that are accepted bring."""
    for newer in ("read1", "shutdown"):
        monkeypatch.delattr(HTTPResponse, newer, raising=False)
    http_sink.answer(Answer(status=200, body="ok"))
    with HttpSession("hook") as session:
        assert session.post(http_sink.url, json={}).body == b"ok"
    assert len(http_sink.requests) == 1


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
    "garbage": (Answer(raw=b"\x00\x01garbage\r\n\r\n"), "protocol"),
    "cut short": (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", drop=False), "reset"),
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


@pytest.mark.parametrize("code", [302, 303, 307, 308])
def test_a_redirect_is_neither_followed_nor_read_to_its_end(http_sink: HttpSink, code: int) -> None:
    http_sink.answer(
        Answer(status=code, headers={"Location": "http://[half:an/address"}, body=b"x" * 5_000_000)
    )
    with HttpSession("hook") as session:
        answer = session.post(http_sink.url, json={})
    assert (answer.status, len(answer.body)) == (code, 65_536)
    assert len(http_sink.requests) == 1


def test_no_cookie_is_kept(http_sink: HttpSink) -> None:
    http_sink.answer(Answer(headers={"Set-Cookie": "a=b; Path=/"}))
    with HttpSession("hook") as session:
        for _ in range(2):
            session.get(http_sink.url)
    assert all("Cookie" not in request.headers for request in http_sink.requests)


def test_nothing_compressed_is_asked_for_or_unpacked(http_sink: HttpSink) -> None:
    packed = gzip.compress(b"x" * 10_000_000)
    http_sink.answer(Answer(body=packed, headers={"Content-Encoding": "gzip"}))
    with HttpSession("hook") as session:
        assert session.get(http_sink.url).body == packed[:65_536]
    assert http_sink.requests[0].headers["Accept-Encoding"] == "identity"


def test_where_the_status_suffices_a_body_may_break_off(http_sink: HttpSink) -> None:
    http_sink.default = Answer(body=b"x" * 1000, trickle=0.05)
    with HttpSession("hook", timeout=0.3) as session:
        assert session.post(http_sink.url, json={}, status_suffices=True).status == 200


def test_a_forked_child_has_connections_of_its_own(http_sink: HttpSink) -> None:
    with HttpSession("hook") as session:
        session.get(http_sink.url)
        child = os.fork()
        if not child:
            os._exit(0 if session.get(http_sink.url).status == 200 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert session.get(http_sink.url).status == 200
    assert len(http_sink.requests) == 3


def test_one_that_is_dropped_keeps_no_connection(http_sink: HttpSink) -> None:
    session = HttpSession("hook")
    session.get(http_sink.url)
    pools = session._adapter.poolmanager.pools
    assert len(pools) == 1
    del session
    gc.collect()
    assert len(pools) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_refused_means_not_sent(host: str) -> None:
    with HttpSession("hook", timeout=1) as session, pytest.raises(BackendUnavailableError) as caught:
        session.get(f"http://{host}:1/")
    assert (caught.value.reason, caught.value.sent) == ("refused", False)


NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NO_ANSWER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize(("error", "reason"), [(NO_SUCH_NAME, "unknown-host"), (NO_ANSWER, "dns")])
def test_faults_of_name_resolution_are_named(
    monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    def getaddrinfo(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with HttpSession("hook", timeout=1) as session, pytest.raises(BackendUnavailableError) as caught:
        session.get("https://hooks.example.com/")
    assert (caught.value.reason, caught.value.sent) == (reason, False)


@pytest.mark.parametrize("host", ["foo..example", "a" * 64 + ".example", ".example", "a b.example"])
def test_a_name_that_no_host_can_have_is_no_host(host: str) -> None:
    with HttpSession("hook", timeout=1) as session, pytest.raises(BackendUnavailableError) as caught:
        session.get(f"https://{host}/")
    assert (caught.value.reason, caught.value.sent) == ("unknown-host", False)


@pytest.mark.parametrize("kind", ["unknown", "expired", "other-host"])
def test_a_certificate_that_is_not_trusted_is_named(
    make_http_sink: Callable[..., HttpSink], certificates: Certificates, kind: str
) -> None:
    sink = make_http_sink(tls=True)
    sink.server_context = certificates.spoilt_context(kind)
    ca_file = str(certificates.ca_file)
    with (
        HttpSession("hook", timeout=2, ca_file=ca_file) as session,
        pytest.raises(BackendUnavailableError) as caught,
    ):
        session.get(sink.url)
    assert (caught.value.reason, caught.value.sent) == ("certificate", False)
    assert sink.requests == []


def test_a_server_that_speaks_no_tls_is_named(http_sink: HttpSink) -> None:
    with HttpSession("hook", timeout=2) as session, pytest.raises(BackendUnavailableError) as caught:
        session.get(http_sink.url.replace("http:", "https:"))
    assert caught.value.reason == "tls"


def test_certificates_that_are_named_are_trusted(make_http_sink: Callable[..., HttpSink]) -> None:
    sink = make_http_sink(tls=True)
    assert sink.certificates is not None
    with HttpSession("hook", timeout=2, ca_file=str(sink.certificates.ca_file)) as session:
        assert session.get(sink.url).status == 200
    context = sink.certificates.client_context
    trusted = context.cert_store_stats()
    with HttpSession("hook", timeout=2, ssl_context=context) as session:
        assert session.get(sink.url).status == 200
    assert context.cert_store_stats() == trusted  # the public authorities were not added


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

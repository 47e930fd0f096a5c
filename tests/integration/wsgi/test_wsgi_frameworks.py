"""The wrappers around applications of five frameworks, validated on both sides."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from mks_hardening.testing import WSGIResponse, call_wsgi
from wsgi_edge_stack import HOST, harden
from wsgi_framework_apps import FRAMEWORKS

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

PROXIED = {
    "Host": HOST,
    "X-Forwarded-For": "6.6.6.6, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "6.6.6.6",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": "session=1"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pyramid", "ignore::UserWarning:pyramid")


@pytest.fixture(scope="module", params=FRAMEWORKS)
def app(request: pytest.FixtureRequest) -> WSGIApplication:
    return FRAMEWORKS[request.param]()


def ask(app: WSGIApplication, path: str, *, peer: str = "10.0.0.1", **how: Any) -> WSGIResponse:
    how = {"headers": PROXIED, **how}
    return call_wsgi(
        app, path, wrap=lambda app: harden(app, "10.0.0.0/8"), environ={"REMOTE_ADDR": peer}, **how
    )


def test_the_framework_believes_what_the_proxy_says(app: WSGIApplication) -> None:
    answer = ask(app, "/where", query="page=2")
    assert answer.status == 200
    document = json.loads(answer.body)
    assert document["url"] == f"https://{HOST}/where?page=2"
    assert (document["secure"], document["client"]) == (True, "203.0.113.9")
    assert f"'nonce-{document['nonce']}'" in str(answer.header("Content-Security-Policy"))
    assert answer.header("Strict-Transport-Security") is not None
    assert re.fullmatch("[0-9a-f]{64}", document["token"])


def test_the_framework_never_sees_what_others_say(app: WSGIApplication) -> None:
    answer = ask(app, "/where", peer="198.51.100.1", scheme="https")
    document = json.loads(answer.body)
    assert (document["url"], document["client"]) == (f"https://{HOST}/where", "198.51.100.1")
    assert not {key for key in answer.environ if key.startswith(("HTTP_X_FORWARDED", "HTTP_X_REAL"))}


def test_plain_requests_are_redirected_before_the_framework(app: WSGIApplication) -> None:
    answer = ask(app, "/where", peer="198.51.100.1", query="q=日本".encode().decode("latin-1"))
    assert answer.status == 301
    assert answer.header("Location") == f"https://{HOST}/where?q=%E6%97%A5%E6%9C%AC"
    assert answer.header("Strict-Transport-Security") is None


def test_a_form_with_a_token_reaches_the_framework_whole(app: WSGIApplication) -> None:
    page = ask(app, "/where")
    token = json.loads(page.body)["token"]
    cookie = next(value for name, value in page.headers if name.lower() == "set-cookie").partition(";")[0]
    body = f"name=taro&csrf_token={token}".encode()
    answer = ask(app, "/form", method="POST", body=body, headers={**PROXIED, **FORM, "Cookie": cookie})
    assert (answer.status, answer.body) == (200, b"taro")
    forged = ask(app, "/form", method="POST", body=b"name=taro", headers={**PROXIED, **FORM})
    assert forged.status == 403


def test_errors_of_the_framework_carry_the_headers(app: WSGIApplication) -> None:
    answer = ask(app, "/missing")
    assert answer.status == 404
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Content-Security-Policy") is not None


def test_probes_do_not_reach_the_framework(app: WSGIApplication) -> None:
    answer = ask(app, "/readyz", peer="198.51.100.1", headers={"Host": "10.2.3.4:8000"})
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")

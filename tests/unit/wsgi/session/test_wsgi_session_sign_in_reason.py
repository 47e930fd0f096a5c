"""The sign-in page can be told why the session ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["mks_hardening.session"].start("7")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


@pytest.mark.parametrize(("passed", "reason"), [(61, "idle"), (0, "revoked")])
def test_the_reason_takes_its_place_in_the_address(passed: int, reason: str) -> None:
    clock = FrozenClock()
    app = SessionTimeoutMiddleware(
        application,
        store=MemorySessionStore(),
        idle_timeout=60,
        sign_in_url="/in?reason={reason}",
        clock=clock,
    )
    cookie = dict(call_wsgi(app, "/").headers)["Set-Cookie"].partition(";")[0]
    clock.advance(passed)
    sent = cookie if reason == "idle" else cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
    answer = call_wsgi(app, "/page", headers={"Cookie": sent, "Accept": "text/html"})
    assert dict(answer.headers)["Location"] == f"/in?reason={reason}"

"""Answers that set or read a session stay out of caches that others share."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

WSGI_ONLY: set[str] = set()
IN_THREAD = True  # its applications call the plain methods of their session


def site(*fields: tuple[str, str]) -> SessionTimeoutMiddleware:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = environ["mks_hardening.session"]
        act = {
            "/sign-in": lambda: session.start("tanaka"),
            "/sign-out": session.end,
            "/me": lambda: session.user_id,
        }
        act.get(environ["PATH_INFO"], lambda: None)()
        start_response("200 OK", [("Content-Type", "text/plain"), *fields])
        return [b"page"]

    return SessionTimeoutMiddleware(application, store=MemorySessionStore())


SAID = [
    (("Cache-Control", "public, max-age=600"),),
    (("Cache-Control", "max-age=600"),),
    (("Cache-Control", "private, s-maxage=600"),),
    (("CDN-Cache-Control", "max-age=600"),),
    (("Vercel-CDN-Cache-Control", "max-age=600"), ("Edge-Control", "max-age=600")),
    (("Cache-Control", 'private="Set-Cookie", max-age=600'),),
    (),
]


@pytest.mark.parametrize("fields", SAID, ids=str)
def test_an_answer_that_sets_or_ends_a_session_is_not_stored(fields: tuple[tuple[str, str], ...]) -> None:
    app = site(*fields)
    signed_in = call_wsgi(app, "/sign-in")
    cookie = str(signed_in.header("Set-Cookie")).partition(";")[0]
    signed_out = call_wsgi(app, "/sign-out", headers={"Cookie": cookie})
    for answer in (signed_in, signed_out):
        said = [value for name, value in answer.headers if "control" in name.lower()]
        assert said == ["no-store"]


@pytest.mark.parametrize("kept", ["no-store, max-age=0", "private, max-age=60"])
def test_what_is_private_already_stays(kept: str) -> None:
    assert call_wsgi(site(("Cache-Control", kept)), "/sign-in").header("Cache-Control") == kept


@pytest.mark.parametrize(
    ("path", "said", "vary"),
    [
        ("/me", [], ["Cookie"]),
        ("/me", [("Vary", "Accept")], ["Accept", "Cookie"]),
        ("/me", [("vary", "accept, cookie")], ["accept, cookie"]),
        ("/me", [("Vary", "*")], ["*"]),
        ("/static", [], []),
    ],
)
def test_an_answer_that_asked_who_it_is_varies_by_cookie(
    path: str, said: list[tuple[str, str]], vary: list[str]
) -> None:
    answer = call_wsgi(site(("Cache-Control", "public"), *said), path)
    assert [value for name, value in answer.headers if name.lower() == "vary"] == vary
    assert answer.header("Cache-Control") == "public"

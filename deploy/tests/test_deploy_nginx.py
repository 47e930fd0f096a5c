"""The rendered nginx configuration, run by nginx in front of gunicorn: a table for each promise."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy_host import HOST, SHORT, Answer, Host
from mks_deploy.template_tables import EDGE_HEADERS, STRIPPED_HEADERS

pytestmark = pytest.mark.nginx

DIGEST = "0123456789ab"
ON_EVERY_ANSWER = (
    *EDGE_HEADERS,
    "Content-Security-Policy",
    "Cache-Control",
    "X-Request-ID",
    "Date",
    "Server",
)


def publish(host: Host) -> None:
    public = host.path("releases") / "public"
    for folder in (public / "static", public / "by-digest" / DIGEST / "static"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.css").write_text(
            f"/* {'published' if DIGEST in str(folder) else 'plain'} */" + "a{}" * 1000
        )
        (folder / "logo.png").write_bytes(b"\x89PNG" + bytes(2000))
    (public / "static" / "app.0123abcd4567.js").write_text("x = 1;" * 1000)
    (public / "static" / ".hidden").write_text("no")
    (public / "static" / "app.css.bak").write_text("no")
    for folder in [public, *public.rglob("*")]:
        folder.chmod(0o755 if folder.is_dir() else 0o644)


@pytest.fixture(scope="module")
def host(certificates: Any) -> Iterator[Host]:
    host = Host(certificates)
    try:
        host.render()
        publish(host)
        host.start_application()
        host.start_nginx()
        yield host
    finally:
        host.stop()


def asked(at: Host, *arguments: Any, **options: Any) -> Answer:
    answer = at.ask(*arguments, **options)
    assert answer is not None
    return answer


# --- what tools say ---------------------------------------------------------------------------


def test_nginx_has_nothing_to_say(host: Host) -> None:
    done = subprocess.run(host.nginx_command("-t"), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "[warn]" not in done.stderr
    assert "[emerg]" not in done.stderr


def test_gixy_has_nothing_to_say(host: Host) -> None:
    gixy = Path(sys.executable).parent / "gixy"
    done = subprocess.run(
        [gixy, "-f", "json", host.path("nginx") / "nginx.conf"], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == [], done.stdout


# --- hosts and names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "location"),
    [
        ("GET", "/a?b=c", HOST, 301, "/a?b=c"),
        ("HEAD", "/", HOST, 301, "/"),
        ("POST", "/form", HOST, 308, "/form"),
        ("PUT", "/api/x", HOST, 308, "/api/x"),
        ("GET", "/", SHORT, 301, "/"),
        ("GET", "/%0d%0aSet-Cookie:x", HOST, 301, "/%0d%0aSet-Cookie:x"),
        ("GET", "//evil.test/x", HOST, 301, "//evil.test/x"),
    ],
)
def test_plain_http_of_a_known_host_is_redirected(  # noqa: PLR0917 - a row of the table
    host: Host, method: str, path: str, name: str, status: int, location: str
) -> None:
    answer = asked(host, path, method=method, host=name, tls=False)
    assert answer.status == status
    assert answer.one("Location") == f"https://{HOST}:{host.https}{location}"
    assert answer.all("Strict-Transport-Security") == []
    assert answer.all("Set-Cookie") == []


@pytest.mark.parametrize("name", ["evil.test", "127.0.0.1", "", f"{HOST}.evil.test", f"evil.{HOST}"])
def test_plain_http_of_an_unknown_host_gets_nothing(host: Host, name: str) -> None:
    answer = host.ask("/", host=name, tls=False)
    assert answer is None or answer.status == 400


@pytest.mark.parametrize("sni", ["evil.test", None])
def test_an_unknown_name_in_the_handshake_is_refused(host: Host, sni: str | None) -> None:
    assert host.ask("/", sni=sni) is None


@pytest.mark.parametrize("name", ["evil.test", "127.0.0.1", "localhost"])
def test_an_unknown_name_behind_a_known_handshake_is_misdirected(host: Host, name: str) -> None:
    assert asked(host, "/", host=name).status == 421


def test_a_further_name_leads_to_the_canonical_one(host: Host) -> None:
    answer = asked(host, "/a?b", host=SHORT, sni=SHORT)
    assert (answer.status, answer.one("Location")) == (308, f"https://{HOST}:{host.https}/a?b")


def test_challenges_are_answered_over_plain_http(host: Host) -> None:
    folder = host.path("acme") / "webroot" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text("token.thumbprint")
    answer = asked(host, "/.well-known/acme-challenge/token", tls=False)
    assert (answer.status, answer.body) == (200, b"token.thumbprint")
    assert answer.one("Content-Type").startswith("text/plain")
    assert asked(host, "/.well-known/acme-challenge/absent", tls=False).status == 404


# --- header fields ----------------------------------------------------------------------------

ANSWERS = [
    ("200", {"path": "/"}, 200),
    ("302", {"path": "/redirect"}, 302),
    ("304", {"path": "/status/304"}, 304),
    ("404 of the application", {"path": "/status/404"}, 404),
    ("429 of the application", {"path": "/status/429"}, 429),
    ("500 of the application", {"path": "/status/500"}, 500),
    ("503 of the application", {"path": "/api/status/503"}, 503),
    ("api", {"path": "/api/x"}, 200),
    ("head", {"path": "/", "method": "HEAD"}, 200),
    ("static", {"path": "/static/app.css"}, 200),
    ("static with its digest", {"path": f"/static/app.css?v={DIGEST}"}, 200),
    ("static with its digest in the name", {"path": "/static/app.0123abcd4567.js"}, 200),
    ("picture", {"path": "/static/logo.png"}, 200),
    ("static 404", {"path": f"/static/absent.css?v={DIGEST}"}, 404),
    ("static 405", {"path": "/static/app.css", "method": "POST"}, 405),
    ("range", {"path": "/static/app.css", "fields": {"Range": "bytes=999999-"}}, 200),
    ("dotfile", {"path": "/.git/config"}, 404),
    ("413", {"path": "/x", "method": "POST", "fields": {"Content-Length": "99999999"}}, 413),
    ("413 of the api", {"path": "/api/x", "method": "PUT", "fields": {"Content-Length": "99999999"}}, 413),
    ("414", {"path": "/" + "x" * 9000}, 414),
    ("400, field too large", {"path": "/", "fields": {"X-Large": "x" * 9000}}, 400),
    ("405, TRACE", {"path": "/", "method": "TRACE"}, 405),
    ("421", {"path": "/", "host": "evil.test"}, 421),
    ("redirect to the canonical name", {"path": "/", "host": SHORT, "sni": SHORT}, 308),
]


@pytest.mark.parametrize(
    ("request_", "status"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_every_answer_has_each_field_once(host: Host, request_: dict[str, Any], status: int) -> None:
    answer = asked(host, **request_)
    assert answer.status == status
    assert {
        name: len(answer.all(name)) for name in (*ON_EVERY_ANSWER, "Strict-Transport-Security")
    } == dict.fromkeys((*ON_EVERY_ANSWER, "Strict-Transport-Security"), 1)
    assert answer.one("Strict-Transport-Security") == "max-age=300"
    assert answer.one("Server") == "nginx"


@pytest.mark.parametrize("path", ["/", "/api/x", "/.well-known/acme-challenge/absent"])
def test_plain_http_has_the_fields_too_but_no_hsts(host: Host, path: str) -> None:
    answer = asked(host, path, tls=False)
    assert {name: len(answer.all(name)) for name in ON_EVERY_ANSWER} == dict.fromkeys(ON_EVERY_ANSWER, 1)
    assert answer.all("Strict-Transport-Security") == []


def test_what_the_application_says_stays_but_for_what_the_edge_owns(host: Host) -> None:
    answer = asked(host, "/own-headers")
    assert answer.one("Content-Security-Policy") == "default-src 'self'"
    assert answer.one("X-Frame-Options") == "SAMEORIGIN"
    assert answer.one("Referrer-Policy") == "no-referrer"
    assert answer.one("Cache-Control") == "private, max-age=7"
    assert answer.one("Strict-Transport-Security") == "max-age=300"
    assert re.fullmatch("[0-9a-f]{32}", answer.one("X-Request-ID"))
    assert answer.all("X-Powered-By") == []


def test_nginx_guesses_no_policy_for_pages_and_files_of_an_application(make_host: Any) -> None:
    """A browser would neither style nor send anything; nginx's own pages keep theirs."""
    host = make_host(edge='content_security_policy = ""')
    host.start_application()
    host.start_nginx()
    for path in ("/html", "/", "/api/x", "/status/404", "/api/status/500", "/redirect", "/static/app.css"):
        assert asked(host, path).all("Content-Security-Policy") == [], path
    assert asked(host, "/own-headers").one("Content-Security-Policy") == "default-src 'self'"
    for own in (
        asked(host, "/.env"),
        asked(host, "/static/absent.css"),
        asked(host, "/x", method="POST", fields={"Content-Length": "99999999"}),
    ):
        assert own.one("Content-Security-Policy").startswith("default-src 'none'; ")


def test_pages_without_a_policy_get_the_one_of_the_settings(make_host: Any) -> None:
    policy = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
    host = make_host(edge=f'content_security_policy = "{policy}"')
    host.start_application()
    host.start_nginx()
    for path in ("/html", "/api/status/404", "/static/app.css"):
        assert asked(host, path).one("Content-Security-Policy") == policy
    assert asked(host, "/own-headers").one("Content-Security-Policy") == "default-src 'self'"
    hand_in(host)
    assert asked(host, "/upload?abcd").one("Content-Security-Policy").startswith("default-src 'none'; ")


ORDINARY = "hardened = false"


def test_pages_written_without_the_library_get_what_cannot_break_them(make_host: Any) -> None:
    """Pictures of other hosts, frames of their own site, and features that a page asks for stay possible."""
    host = make_host(app=ORDINARY, edge='content_security_policy = ""')
    host.start_application()
    host.start_nginx()
    for path in ("/html", "/static/app.css"):
        answer = asked(host, path)
        assert answer.one("X-Frame-Options") == "SAMEORIGIN"
        assert answer.one("X-Content-Type-Options") == "nosniff"
        assert answer.one("Cross-Origin-Opener-Policy") == "same-origin-allow-popups"
        assert answer.one("Cross-Origin-Resource-Policy") == "same-site"
        for absent in ("Cross-Origin-Embedder-Policy", "Permissions-Policy", "Content-Security-Policy"):
            assert answer.all(absent) == [], absent
    hand_in(host)
    for path in ("/upload?abcd", "/static/absent.css"):
        assert asked(host, path).one("X-Frame-Options") == "DENY"


def test_pages_that_other_sites_may_embed(make_host: Any) -> None:
    host = make_host(app=ORDINARY, edge="embeddable = true")
    host.start_application()
    host.start_nginx()
    answer = asked(host, "/html")
    assert answer.all("X-Frame-Options") == []
    assert answer.one("Cross-Origin-Resource-Policy") == "cross-origin"
    assert asked(host, "/own-headers").one("X-Frame-Options") == "SAMEORIGIN"


@pytest.mark.parametrize("preset", ["web", "legacy", "api"])
def test_a_preset_agrees_with_what_the_application_says_of_frames(make_host: Any, preset: str) -> None:
    host = make_host(app=ORDINARY, edge=f'content_security_policy = "{preset}"')
    host.start_application()
    host.start_nginx()
    policy = asked(host, "/html").one("Content-Security-Policy")
    assert "frame-ancestors 'self'" in policy
    assert ("'unsafe-inline'" in policy) is (preset == "legacy")
    framed = asked(host, "/framed")
    assert framed.one("X-Frame-Options") == "DENY"
    assert framed.one("Content-Security-Policy") == policy.replace("; frame-ancestors 'self'", "")


def test_hsts_is_raised_by_the_settings_and_stays_one_line(make_host: Any) -> None:
    host = make_host(hsts='hsts_max_age = "730d"\nhsts_subdomains = true')
    host.start_application()
    host.start_nginx()
    for path in ("/", "/own-headers", "/.env"):
        assert asked(host, path).one("Strict-Transport-Security") == "max-age=63072000; includeSubDomains"


@pytest.mark.parametrize(
    ("client", "path", "status"),
    [
        ("127.0.0.1", "/readyz", 200),
        # The host itself, by its own address.
        ("127.0.0.8", "/readyz", 200),
        ("127.0.0.9", "/readyz", 403),
        ("127.0.0.9", "/livez", 403),
        # A load balancer in front asks in its own name; its clients do not.
        ("127.0.1.1", "/readyz", 200),
    ],
)
def test_the_health_address_is_for_this_machine_and_the_proxies_in_front(
    answering: Host, client: str, path: str, status: int
) -> None:
    answer = answering.ask(path, client=client, at="127.0.0.8")
    assert answer is not None
    assert answer.status == status
    asked_for_another = answering.ask(
        path, client="127.0.1.1", at="127.0.0.8", fields={"X-Forwarded-For": "203.0.113.9"}
    )
    assert asked_for_another is not None
    assert asked_for_another.status == 403


@pytest.fixture(scope="module")
def answering(certificates: Any) -> Iterator[Host]:
    host = Host(certificates, listen="any", edge='proxies_in_front = ["127.0.1.0/24"]')
    try:
        host.render()
        host.start_application()
        host.start_nginx()
        yield host
    finally:
        host.stop()


def test_a_body_may_be_as_large_as_the_settings_say(make_host: Any) -> None:
    host = make_host(edge='body_limit = "1m"')
    host.start_application()
    host.start_nginx()
    for path in ("/x", "/api/x"):
        assert asked(host, path, method="POST", body=bytes(1024**2)).json()["length"] == 1024**2
        assert asked(host, path, method="POST", body=bytes(1024**2 + 1)).status == 413


def test_a_large_head_of_the_application_is_no_error(host: Host) -> None:
    assert asked(host, "/large-head").status == 200


def test_pages_of_the_edge_are_japanese_and_may_use_their_style(host: Host) -> None:
    answer = asked(host, "/.env")
    assert answer.status == 404
    assert answer.one("Content-Type") == "text/html; charset=utf-8"
    assert "ページが見つかりません" in answer.body.decode()
    assert "style-src 'sha256-" in answer.one("Content-Security-Policy")
    assert answer.one("Cache-Control") == "no-store"


def test_the_api_gets_problem_documents_from_the_edge(host: Host) -> None:
    answer = asked(host, "/api/x", method="PUT", fields={"Content-Length": "99999999"})
    assert answer.one("Content-Type").startswith("application/problem+json")
    assert answer.json()["status"] == 413


# --- what the application receives -------------------------------------------------------------

LIES = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "1",
    "X-Request-ID": "chosen-by-client",
    **dict.fromkeys(STRIPPED_HEADERS, "evil"),
    "X_Forwarded_For": "6.6.6.6",
    "X_Real_IP": "6.6.6.6",
}


@pytest.mark.parametrize("path", ["/", "/api/x", "/readyz"])
def test_forwarded_fields_are_overwritten_or_taken_away(host: Host, path: str) -> None:
    answer = asked(host, path, fields=LIES)
    environ = answer.json()["environ"]
    assert environ["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert environ["HTTP_X_FORWARDED_HOST"] == environ["HTTP_HOST"] == f"{HOST}:{host.https}"
    assert environ["HTTP_X_FORWARDED_PORT"] == str(host.https)
    assert environ["HTTP_X_REQUEST_ID"] == answer.one("X-Request-ID")
    assert [name for name in STRIPPED_HEADERS if f"HTTP_{name.upper().replace('-', '_')}" in environ] == []
    assert not [
        value for value in environ.values() if value in {"evil", "6.6.6.6", "chosen-by-client", "evil.test"}
    ]


def test_the_usual_keys_say_who_the_client_is(host: Host) -> None:
    environ = asked(host, "/", fields={"Script-Name": "/evil"}).json()["environ"]
    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("https", "127.0.0.1")
    assert environ["SCRIPT_NAME"] == ""


def test_connections_to_the_application_are_kept(host: Host) -> None:
    assert max(asked(host, "/").json()["on_connection"] for _ in range(4)) > 1


# --- static files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "cache", "content"),
    [
        (f"/static/app.css?v={DIGEST}", "public, max-age=31536000, immutable", b"published"),
        ("/static/app.0123abcd4567.js", "public, max-age=31536000, immutable", b"x = 1"),
        ("/static/app.css", "public, max-age=300, must-revalidate", b"plain"),
        ("/static/app.css?v=ffffffffffff", "public, max-age=300, must-revalidate", b"plain"),
        ("/static/app.css?v=../../../../etc/passwd", "public, max-age=300, must-revalidate", b"plain"),
        (f"/static/logo.png?v={DIGEST}", "public, max-age=31536000, immutable", b"PNG"),
    ],
)
def test_only_what_never_changes_is_immutable(host: Host, path: str, cache: str, content: bytes) -> None:
    answer = asked(host, path)
    assert answer.status == 200
    assert answer.one("Cache-Control") == cache
    assert content in answer.body
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', answer.one("ETag"))


@pytest.mark.parametrize(
    ("condition", "validator"), [("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")]
)
def test_validators_spare_the_body(host: Host, condition: str, validator: str) -> None:
    first = asked(host, "/static/app.css")
    again = asked(host, "/static/app.css", fields={condition: first.one(validator)})
    assert (again.status, again.body) == (304, b"")
    assert again.one("Cache-Control") == first.one("Cache-Control")


@pytest.mark.parametrize(
    ("path", "compressed"),
    [("/static/app.css", True), ("/", True), ("/html", True), ("/api/x", True), ("/static/logo.png", False)],
)
def test_text_is_compressed_and_caches_are_told(host: Host, path: str, *, compressed: bool) -> None:
    answer = asked(host, path, fields={"Accept-Encoding": "gzip"})
    assert answer.all("Content-Encoding") == (["gzip"] if compressed else [])
    if compressed:
        assert "Accept-Encoding" in answer.one("Vary")
        plain = asked(host, path)
        assert "Accept-Encoding" in plain.one("Vary")
        assert len(gzip.decompress(answer.body)) > 2 * len(answer.body)


def test_a_tag_that_compression_has_weakened_still_names_its_version(host: Host) -> None:
    read = asked(host, "/api/tagged", fields={"Accept-Encoding": "gzip"})
    assert (read.one("Content-Encoding"), read.one("ETag")) == ("gzip", 'W/"v-1"')
    for sent, expected in {
        read.one("ETag"): '"v-1"',
        '"v-1"': '"v-1"',
        "*": "*",
        'W/"a", "b"': 'W/"a", "b"',
        "W/v": "W/v",
    }.items():
        saved = asked(host, "/api/x", method="PUT", fields={"If-Match": sent}, body=b"{}")
        assert saved.json()["environ"]["HTTP_IF_MATCH"] == expected
    assert "HTTP_IF_MATCH" not in asked(host, "/api/x").json()["environ"]


@pytest.mark.parametrize(
    "path",
    [
        "/.git/config",
        "/.env",
        "/static/.hidden",
        "/static/%2ehidden",
        "/static/../.env",
        "/a/.htaccess",
        "/static/app.css.bak",
        "/dump.sql",
        "/index.php~",
    ],
)
def test_dotfiles_and_leftovers_do_not_exist(host: Host, path: str) -> None:
    answer = asked(host, path)
    assert answer.status == 404
    assert answer.body != b"no"


def test_well_known_reaches_the_application(host: Host) -> None:
    assert (
        asked(host, "/.well-known/security.txt").json()["environ"]["PATH_INFO"] == "/.well-known/security.txt"
    )


@pytest.mark.parametrize(
    "path", ["/static/%2e%2e/%2e%2e/out", "/static/..%2f..%2fetc/passwd", "/static//../../x"]
)
def test_no_way_out_of_the_folder(host: Host, path: str) -> None:
    assert asked(host, path).status in {400, 404, 200}
    assert b"root:" not in asked(host, path).body


def test_api_answers_are_never_kept(host: Host) -> None:
    for path in ("/api/x", "/api/status/404", "/api/status/500"):
        assert asked(host, path).one("Cache-Control") == "no-store"


# --- uploads ----------------------------------------------------------------------------------


UPLOAD = b"\xff\xd8" + bytes(3000)
ON_AN_UPLOAD = (*ON_EVERY_ANSWER, "Content-Type", "Content-Disposition", "Strict-Transport-Security")


def hand_in(host: Host) -> None:
    folder = host.path("state") / "uploads" / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "abcd").write_bytes(UPLOAD)
    for each in (folder.parent, folder, folder / "abcd"):
        each.chmod(0o755)


@pytest.mark.parametrize(
    ("asked_for", "status", "expected", "body"),
    [
        ("bytes=0-1", 206, ["bytes 0-1/3002"], UPLOAD[:2]),
        ("bytes=-2", 206, ["bytes 3000-3001/3002"], UPLOAD[-2:]),
        ("bytes=3000-", 206, ["bytes 3000-3001/3002"], UPLOAD[-2:]),
        ("bytes=0-1,5-6", 200, [], UPLOAD),
        ("bytes=3002-", 416, ["bytes */3002"], None),
        ("bytes=5-2", 416, ["bytes */3002"], None),
    ],
)
def test_an_upload_is_had_in_parts(
    host: Host, asked_for: str, status: int, expected: list[str], body: bytes | None
) -> None:
    """A reader of PDF asks for its pages; and no field is said twice, whatever comes of it."""
    hand_in(host)
    answer = asked(host, "/upload?abcd", fields={"Range": asked_for})
    assert (answer.status, answer.all("Content-Range")) == (status, expected)
    if body is not None:
        assert answer.body == body
        assert answer.all("Accept-Ranges") == (["bytes"] if status == 200 else [])
    assert {name: len(answer.all(name)) for name in ON_AN_UPLOAD} == dict.fromkeys(ON_AN_UPLOAD, 1)
    assert answer.one("Content-Security-Policy") == "default-src 'none'; frame-ancestors 'none'; sandbox"


def test_a_part_of_an_upload_that_has_changed_is_the_whole(host: Host) -> None:
    hand_in(host)
    known = asked(host, "/upload?abcd").one("ETag")
    for etag, status in ((known, 206), ('"another"', 200)):
        part = asked(host, "/upload?abcd", fields={"Range": "bytes=0-1", "If-Range": etag})
        assert part.status == status


def test_nginx_sends_an_upload_when_the_application_says_so_and_keeps_its_fields(host: Host) -> None:
    hand_in(host)
    answer = asked(host, "/upload?abcd")
    assert (answer.status, answer.body) == (200, UPLOAD)
    assert {name: len(answer.all(name)) for name in ON_AN_UPLOAD} == dict.fromkeys(ON_AN_UPLOAD, 1)
    assert answer.one("Content-Type") == "image/jpeg"
    assert answer.one("Content-Disposition") == "inline; filename*=UTF-8''%E5%86%99%E7%9C%9F.jpg"
    assert answer.one("Content-Security-Policy") == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.one("Cache-Control") == "private, no-cache"
    assert answer.all("X-Accel-Redirect") == []
    spared = asked(host, "/upload?abcd", fields={"If-None-Match": answer.one("ETag")})
    assert (spared.status, spared.body) == (304, b"")
    lost = asked(host, "/upload?lost")
    assert (lost.status, lost.one("Content-Type")) == (404, "text/html; charset=utf-8")
    assert "style-src 'sha256-" in lost.one("Content-Security-Policy")
    assert {name: len(lost.all(name)) for name in ON_EVERY_ANSWER} == dict.fromkeys(ON_EVERY_ANSWER, 1)


@pytest.mark.parametrize("path", ["/-/uploads/ab/abcd", "/-/uploads/", "/-/uploads/../uploads/ab/abcd"])
def test_nobody_reaches_an_upload_by_its_address(host: Host, path: str) -> None:
    assert asked(host, path, fields={"X-Accel-Redirect": "/-/uploads/ab/abcd"}).status == 404


MEDIA = {
    "photo.jpg": "image/jpeg",
    "drawing.svg": "image/svg+xml",
    "page.html": "text/html; charset=utf-8",
    "report.pdf": "application/pdf",
    "unknown": "application/octet-stream",
    "private/photo.jpg": "",
    ".hidden": "",
    "ab/.hidden": "",
}


@pytest.fixture(scope="module")
def media(certificates: Any) -> Iterator[Host]:
    host = Host(certificates, upkeep='[media]\nurl = "/media/"')
    try:
        host.render()
        for name in MEDIA:
            file = host.path("state") / "uploads" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(UPLOAD)
        for each in [host.path("state") / "uploads", *(host.path("state") / "uploads").rglob("*")]:
            each.chmod(0o755)
        host.start_application()
        host.start_nginx()
        yield host
    finally:
        host.stop()


@pytest.mark.parametrize(("name", "kind"), MEDIA.items())
def test_what_users_handed_in_has_no_power_in_a_browser(media: Host, name: str, kind: str) -> None:
    answer = asked(media, f"/media/{name}")
    assert answer.status == (200 if kind else 404)
    assert answer.one("X-Content-Type-Options") == "nosniff"
    if kind:
        assert (answer.body, answer.one("Content-Type")) == (UPLOAD, kind)
        assert answer.all("Content-Disposition") == ([] if kind == "image/jpeg" else ["attachment"])
        assert answer.one("Content-Security-Policy") == "default-src 'none'; frame-ancestors 'none'; sandbox"
        assert answer.one("X-Frame-Options") == "DENY"
        assert answer.one("Cache-Control") == "public, max-age=300, must-revalidate"


@pytest.mark.parametrize(
    "path",
    [
        "/media/",
        "/media/x/../private/photo.jpg",
        "/media//private/photo.jpg",
        "/media/%70rivate/photo.jpg",
        "/media/..%2fspool/",
        "/media/../../credentials/key",
    ],
)
def test_nobody_gets_round_the_folder_of_media(media: Host, path: str) -> None:
    """A path that leaves it reaches the application, as every other one does."""
    answer = asked(media, path)
    assert answer.status in {400, 403, 404} or "environ" in answer.json()


def test_what_only_the_application_may_give_out_is_downloaded_too(media: Host) -> None:
    for name, sent in (("page.html", ["attachment"]), ("private/photo.jpg", [])):
        answer = asked(media, f"/send?{name}")
        assert (answer.status, answer.body) == (200, UPLOAD)
        assert answer.all("Content-Disposition") == sent
        assert answer.one("Cache-Control") == "private"


# --- limits, status, log ----------------------------------------------------------------------


def test_a_body_below_the_limit_passes(host: Host) -> None:
    answer = asked(host, "/x", method="POST", body=bytes(2 * 1024 * 1024))
    assert answer.json()["length"] == 2 * 1024 * 1024


def test_the_status_page_is_for_this_machine(host: Host) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", host.status, timeout=5)
    connection.request("GET", "/nginx-status")
    assert b"Active connections" in connection.getresponse().read()
    connection.close()
    assert asked(host, "/nginx-status").json()["environ"]["PATH_INFO"] == "/nginx-status"
    assert (
        f"listen 127.0.0.1:{host.status};"
        in (host.path("nginx") / "sites-enabled/knowledge-system.conf").read_text()
    )


def test_the_log_is_json_with_the_id_and_without_the_query(host: Host) -> None:
    answer = asked(
        host, '/a"b\\?token=secret', fields={"User-Agent": 'x"\x07\\あ'.encode().decode("latin-1")}
    )
    line = host.line_of(answer.one("X-Request-ID"))
    assert line["path"] == '/a"b\\'
    assert line["status"] == answer.status
    assert line["client"] == "127.0.0.1"
    assert line["upstream"].startswith("unix:")
    assert float(line["upstream_seconds"]) >= 0
    assert "secret" not in host.log_file.read_text()


def test_errors_are_logged_under_their_own_path(host: Host) -> None:
    answer = asked(host, "/static/absent?x=y")
    assert host.line_of(answer.one("X-Request-ID"))["path"] == "/static/absent"


def test_every_line_of_the_log_is_json_even_for_what_is_no_request(host: Host) -> None:
    host.say(b"\x16\x03\x01 nonsense\r\n\r\n")
    host.say(b"GET / HTTP/9.9\r\n\r\n")
    host.say(b"GET /\r\n")
    assert host.log_lines()


# --- hosts of their own -----------------------------------------------------------------------


@pytest.fixture
def make_host(certificates: Any) -> Iterator[Any]:
    hosts: list[Host] = []

    def make(**options: str) -> Host:
        hosts.append(Host(certificates, **options))
        hosts[-1].render()
        publish(hosts[-1])
        return hosts[-1]

    yield make
    for host in hosts:
        host.stop()


def test_an_application_that_is_away_is_told_in_our_words(make_host: Any) -> None:
    host = make_host()
    host.start_nginx()
    answer = asked(host, "/")
    assert answer.status == 502
    assert "アプリケーションに接続できません" in answer.body.decode()
    assert answer.one("Retry-After") == "5"
    assert {name: len(answer.all(name)) for name in ON_EVERY_ANSWER} == dict.fromkeys(ON_EVERY_ANSWER, 1)
    assert asked(host, "/api/x").json()["status"] == 502
    assert asked(host, "/static/app.css").status == 200


@pytest.mark.parametrize("used_before", [False, True])
def test_requests_except_post_are_repeated_when_their_worker_is_killed(
    make_host: Any, *, used_before: bool
) -> None:
    host = make_host()
    host.start_application()
    host.start_nginx()
    for method, status in (("GET", 200), ("PUT", 200), ("POST", 502)):
        if used_before:  # the connection to the worker
            assert asked(host, "/").status == 200
        assert asked(host, f"/kill?{host.folder}/{method}", method=method).status == status


def test_maintenance_is_a_file_and_static_files_and_challenges_go_on(make_host: Any) -> None:
    host = make_host()
    host.start_nginx()
    flag = host.path("releases") / "maintenance.on"
    flag.touch()
    page, api = asked(host, "/"), asked(host, "/api/x")
    assert (page.status, api.status) == (503, 503)
    assert page.one("Retry-After") == "60"
    assert "メンテナンス中" in page.body.decode()
    assert api.json()["status"] == 503
    assert asked(host, "/static/app.css").status == 200
    assert asked(host, "/", tls=False).status == 301
    flag.unlink()
    assert asked(host, "/").status == 502


def test_too_many_requests_are_refused_by_the_edge(make_host: Any) -> None:
    host = make_host(edge="requests_per_second = 1\nburst = 5\nsign_in_per_minute = 1")
    host.start_nginx()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: asked(host, "/static/app.css"), range(20)))
    assert {answer.status for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.one("Retry-After") == "1"
    assert {name: len(refused.all(name)) for name in ON_EVERY_ANSWER} == dict.fromkeys(ON_EVERY_ANSWER, 1)
    assert "少し待って" in refused.body.decode()


def test_signing_in_has_a_limit_of_its_own(make_host: Any) -> None:
    host = make_host(edge="sign_in_per_minute = 1")
    host.start_nginx()
    attempts = [asked(host, "/sign-in", method="POST").status for _ in range(15)]
    assert attempts.count(502) == 11
    assert attempts.count(429) == 4
    assert asked(host, "/sign-in").status == 502


OFFICES = """proxies_in_front = ["127.0.0.0/8"]
offices = { "203.0.113.8/29" = 1000, "203.0.113.9/32" = 60, "2001:db8:1::/48" = 600 }"""


def test_a_thousand_people_of_an_office_sign_in_and_strangers_keep_their_limit(make_host: Any) -> None:
    host = make_host(edge=OFFICES)
    host.start_nginx()
    # One of two addresses of the office, or of an IPv6 /64 below it: the office is counted as a whole.
    sent = {
        "office": [f"203.0.113.{10 + number % 2}" for number in range(1000)],
        "most specific": ["203.0.113.9"] * 80,
        "IPv6": [f"2001:db8:1:{number % 7}::5" for number in range(100)],
        "stranger": ["203.0.113.7"] * 40,
        "IPv6 stranger": ["2001:db8:2::1"] * 40,
    }
    refused = {who: signed_in(host, addresses).count(429) for who, addresses in sent.items()}
    assert {who: refused[who] for who in ("office", "IPv6")} == {"office": 0, "IPv6": 0}
    # Sixty at once, and one more each second; ten at once from elsewhere. A slow machine gives some time.
    assert 10 <= refused["most specific"] <= 19
    assert all(20 <= refused[who] <= 29 for who in ("stranger", "IPv6 stranger"))


def signed_in(host: Host, addresses: list[str]) -> list[int]:
    """Send passwords over one connection, each as an address; return the statuses."""
    context = ssl.create_default_context(cafile=str(host.certificates.cert_file))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPConnection(HOST)
    plain = socket.create_connection(("127.0.0.1", host.https), timeout=30)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = context.wrap_socket(plain, server_hostname=HOST)
    statuses = []
    for address in addresses:
        connection.request("POST", "/sign-in", b"name=x", {"X-Forwarded-For": address})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses


def test_too_many_connections_are_refused_by_the_edge(make_host: Any) -> None:
    host = make_host(edge="connections_per_address = 1")
    host.start_application()
    host.start_nginx()
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: asked(host, "/slow?0.5").status, range(4)))
    assert sorted(statuses) == [200, 429, 429, 429]


def test_a_proxy_in_front_is_believed_only_where_it_is_named(make_host: Any) -> None:
    host = make_host(edge='proxies_in_front = ["127.0.0.0/8"]')
    host.start_application()
    host.start_nginx()
    environ = asked(host, "/", fields={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}).json()["environ"]
    assert environ["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"


def test_staging_differs_in_names_alone_and_stays_out_of_search(make_host: Any) -> None:
    production, staging = make_host(), make_host(environment="staging")
    staging.start_nginx()
    assert asked(staging, "/static/app.css").one("X-Robots-Tag") == "noindex, nofollow"
    assert asked(staging, "/robots.txt").body == b"User-agent: *\nDisallow: /\n"
    names = [
        {str(file.relative_to(host.path("nginx"))) for file in host.path("nginx").rglob("*")}
        for host in (production, staging)
    ]
    assert names[0] == names[1]


def test_the_api_may_be_refused_over_plain_http(make_host: Any) -> None:
    host = make_host(edge="refuse_api_over_http = true")
    host.start_nginx()
    answer = asked(host, "/api/x", tls=False)
    assert (answer.status, answer.json()["status"]) == (403, 403)
    assert asked(host, "/x", tls=False).status == 301

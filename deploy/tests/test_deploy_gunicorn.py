"""gunicorn without nginx: its own TLS, and a second master that redirects plain http."""

from __future__ import annotations

import json
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_host import HOST, Host
from mks_deploy.plain_http import plain_http
from mks_hardening.testing import call_wsgi


@pytest.fixture(scope="module")
def host(certificates: Any) -> Iterator[Host]:
    host = Host(certificates, mode="direct")
    try:
        host.render()
        host.start_direct()
        yield host
    finally:
        host.stop()


def test_https_answers_and_nothing_of_nginx_is_rendered(host: Host) -> None:
    answer = host.ask("/", fields={"X-Forwarded-Proto": "http", "Script-Name": "/evil"})
    assert answer is not None
    environ = json.loads(answer.body)["environ"]
    assert (environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]) == ("https", "")
    assert not host.path("nginx").exists()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_old_tls_is_refused(host: Host, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", host.https), timeout=5) as connection:
        if version == ssl.TLSVersion.TLSv1_1:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection)
            return
        with context.wrap_socket(connection, server_hostname=HOST) as secured:
            chosen = secured.cipher()
            assert chosen is not None
            assert "GCM" in chosen[0] or "CHACHA20" in chosen[0]


@pytest.mark.parametrize("name", ["evil.test", None])
def test_an_unknown_name_is_refused_in_the_handshake(host: Host, name: str | None) -> None:
    assert host.ask("/", sni=name) is None
    assert host.ask("/", sni="www.example.test") is not None


def test_plain_http_is_redirected_and_never_speaks_tls(host: Host) -> None:
    answer = host.ask("/a?b", method="POST", tls=False)
    assert answer is not None
    assert (answer.status, answer.one("Location")) == (308, f"https://{HOST}:{host.https}/a?b")
    unknown = host.ask("/", host="evil.test", tls=False)
    assert unknown is not None
    assert (unknown.status, unknown.all("Location")) == (400, [])
    with socket.create_connection(("127.0.0.1", host.http), timeout=5) as connection:
        context = ssl.create_default_context()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection, server_hostname=HOST)


def test_challenges_are_answered_over_plain_http(host: Host) -> None:
    folder = host.path("acme") / "webroot" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token_-1").write_text("token.thumbprint")
    answer = host.ask("/.well-known/acme-challenge/token_-1", tls=False)
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"token.thumbprint")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/.well-known/acme-challenge/absent", 404),
        ("/.well-known/acme-challenge/../../secret", 301),
        ("/.well-known/acme-challenge/a/b", 404),
        ("/.well-known/acme-challenge/", 404),
        ("/.well-known/acme-challenge/x" + "y" * 128, 404),
    ],
)
def test_a_challenge_names_a_file_and_never_a_path(tmp_path: Path, path: str, status: int) -> None:
    (tmp_path / "secret").write_text("no")
    app = plain_http((HOST,), https_port=443, webroot=tmp_path)
    answer = call_wsgi(app, path, headers={"Host": HOST})
    assert int(str(answer.status).split()[0]) == status

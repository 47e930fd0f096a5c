"""The applications of the tutorials under gunicorn, configured for production behind a proxy."""

from __future__ import annotations

import http.client
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

APPLICATIONS = Path(__file__).parents[3] / "docs" / "snippets" / "tutorial"
TARGETS = {
    "django": "django_app:application",
    "falcon": "falcon_app:app",
    "flask": "flask_app:app",
    "pyramid": "pyramid_app:app",
    "wsgi": "wsgi_app:app",
}
TOKEN = re.compile(r'name="csrf(?:_token|middlewaretoken)" value="([^"]+)"')
PROXY = {"Host": "notes.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}

pytestmark = pytest.mark.skipif(
    not APPLICATIONS.is_dir(), reason="the documentation is not part of the wheel"
)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    started: list[ServerProcess] = []

    def start(name: str) -> int:
        pytest.importorskip(name if name != "wsgi" else "gunicorn")
        port = free_port()
        variables = {
            "PYTHONPATH": str(APPLICATIONS),
            "MKS_ALLOWED_HOSTS": "notes.example.com",
            "MKS_TRUSTED_PROXIES": "127.0.0.1",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MKS_")}
        process = ServerProcess(
            [
                *("env", "-i", *(f"{key}={value}" for key, value in {**kept, **variables}.items())),
                *(sys.executable, "-m", "gunicorn", "-w", "1", "--no-control-socket"),
                *("-b", f"127.0.0.1:{port}", TARGETS[name]),
            ],
            log=tmp_path / f"{name}.log",
            ready=lambda: accepts_connections(port),
        )
        started.append(process)
        process.start()
        return port

    yield start
    for process in started:
        process.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_the_form_is_accepted_in_production(serve: Callable[[str], int], name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serve(name), timeout=60)
    connection.request("GET", "/", headers=PROXY)
    page = connection.getresponse()
    text = page.read().decode()
    assert page.status == 200, text
    assert page.headers["Strict-Transport-Security"]
    token = TOKEN.search(text)
    assert token is not None, text
    field = token[0].partition('"')[2].partition('"')[0]
    cookies = "; ".join(each.partition(";")[0] for each in page.headers.get_all("Set-Cookie") or [])
    headers = {
        **PROXY,
        "Origin": "https://notes.example.com",
        "Referer": "https://notes.example.com/",
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": cookies,
    }
    connection.request("POST", "/", urlencode({"note": "hello", field: token[1]}), headers)
    answer = connection.getresponse()
    assert (answer.status, "saved 5" in answer.read().decode()) == (200, True)
    connection.close()

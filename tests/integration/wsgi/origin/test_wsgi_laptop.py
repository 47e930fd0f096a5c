"""The whole edge on a laptop: no TLS, no proxy, nothing set but MKS_ENV=development, asked as browsers ask."""

from __future__ import annotations

import http.cookiejar
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[3] / "support"


class Browser:
    """Keeps cookies and names the page it comes from; redirects are followed."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )

    def ask(self, path: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str, str]:
        """Status, body and the address in the end."""
        request = urllib.request.Request(self.site + path, headers=headers)
        if form is not None:
            request.data = urllib.parse.urlencode(form).encode()
            request.headers |= {"Origin": self.site, "Sec-fetch-site": "same-origin", **headers}
        try:
            with self._opener.open(request, timeout=20) as answer:
                self.headers = answer.headers
                return answer.status, answer.read().decode(), answer.url
        except urllib.error.HTTPError as error:
            with error:
                self.headers = error.headers
                return error.code, error.read().decode(), error.url


@contextmanager
def served(
    folder: Path, app: str, *, bind: str = "127.0.0.1", **variables: str
) -> Iterator[tuple[int, Path]]:
    port = free_port()
    variables |= {"PYTHONPATH": str(SUPPORT), "HOME": os.environ.get("HOME", "/")}
    variables |= {"LAPTOP_DB": str(folder / "laptop.sqlite")}
    process = ServerProcess(
        [
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *(sys.executable, "-m", "gunicorn", "-w", "1", "--no-control-socket", "-b", f"{bind}:{port}"),
            f"wsgi_laptop_apps:{app}()",
        ],
        log=folder / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    try:
        yield port, folder / "log"
    finally:
        process.stop()


@pytest.mark.parametrize("app", ["flask_app", "pyramid_app"])
def test_a_form_and_a_sign_in_work_as_they_stand(app: str, tmp_path: Path) -> None:
    with served(tmp_path, app, MKS_ENV="development") as (port, log):
        for host in ("127.0.0.1", "localhost"):
            browser = Browser(f"http://{host}:{port}")
            assert browser.ask("/")[0] == 200
            assert "Strict-Transport-Security" not in browser.headers
            assert "upgrade-insecure-requests" not in browser.headers["Content-Security-Policy"]
            assert browser.ask("/form", {"name": "tanaka"})[:2] == (200, "welcome")
            assert browser.ask("/me")[1] == "tanaka"
        evil = {"Origin": "http://evil.test", "Sec-fetch-site": "cross-site"}
        assert browser.ask("/form", {"name": "x"}, **evil)[0] == 403
        assert browser.ask("/", Host="evil.test")[0] == 400
    warned = [line for line in log.read_text().splitlines() if "MKS_ENV=development" in line]
    assert len(warned) == 1


def test_the_sign_in_of_djangos_admin_works(tmp_path: Path) -> None:
    with served(tmp_path, "django_admin", MKS_ENV="development") as (port, _):
        browser = Browser(f"http://127.0.0.1:{port}")
        status, page, url = browser.ask("/admin/")
        assert status == 200
        assert "/admin/login/" in url
        token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[0]
        form = {"username": "tanaka", "password": "correct horse", "csrfmiddlewaretoken": token}
        path = url.removeprefix(browser.site)
        status, page, url = browser.ask(path, form)
        assert (status, url) == (200, f"{browser.site}/admin/")
        assert "Log out" in page
        assert browser.ask("/admin/auth/user/")[0] == 200


def test_production_is_as_strict_as_ever(tmp_path: Path) -> None:
    variables = {"MKS_ALLOWED_HOSTS": "www.example.com"}
    with served(tmp_path, "flask_app", **variables) as (port, log):
        browser = Browser(f"http://127.0.0.1:{port}")
        assert browser.ask("/")[0] == 400
        assert "MKS_ENV" not in log.read_text()


FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.mark.chromium
def test_a_real_browser_signs_in(tmp_path: Path, chromium_path: str) -> None:
    from playwright.sync_api import sync_playwright

    with (
        served(tmp_path, "django_admin", MKS_ENV="development") as (port, _),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=FLAGS) as browser,
    ):
        page = browser.new_page()
        for host in ("127.0.0.1", "localhost"):
            page.goto(f"http://{host}:{port}/admin/")
            page.fill("input[name=username]", "tanaka")
            page.fill("input[name=password]", "correct horse")
            page.click("input[type=submit]")
            page.wait_for_url(f"http://{host}:{port}/admin/")
            assert page.locator("#logout-form").count() == 1

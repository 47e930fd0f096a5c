"""An HTTP client that uses the pages like a browser, and assertions on responses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import requests


class WalkthroughError(Exception):
    """The demonstration did not behave as expected."""


class BrowserClient:
    """A browser session: keeps cookies, runs no JavaScript, sends no ``Origin`` header."""

    def __init__(self, url: str, ca_file: Path, agent: str = "walkthrough") -> None:
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(ca_file)
        self.http.headers.update({"User-Agent": agent, "Accept-Language": "ja", "Accept": "text/html"})
        self._token = ""

    def get(self, path: str, **options: Any) -> requests.Response:
        """Request a page without following redirects."""
        answer = self.http.get(self.url + path, timeout=30, allow_redirects=False, **options)
        self._remember_token(answer)
        return answer

    def submit(self, page: str, fields: dict[str, str], *, action: str = "") -> requests.Response:
        """Request a page and submit its form with the CSRF token of the page."""
        self.get(page)
        return self.post(action or page, fields)

    def post(self, path: str, fields: dict[str, str]) -> requests.Response:
        """Submit a form with the CSRF token of the last page."""
        data = {"csrf_token": self._token, **fields}
        answer = self.http.post(self.url + path, data=data, timeout=30, allow_redirects=False)
        self._remember_token(answer)
        return answer

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """Send a request to a JSON endpoint; ``bytes`` are sent unchanged."""
        sent = {"json": body} if not isinstance(body, bytes) else {"data": body}
        kind = {"Content-Type": "application/json"} if body is not None else {}
        answer = self.http.request(
            method,
            self.url + path,
            headers={"Accept": "application/json", "X-CSRF-Token": self._token, **kind, **headers},
            timeout=30,
            allow_redirects=False,
            **(sent if body is not None else {}),
        )
        if answer.headers.get("Content-Type") == "application/json":
            self._token = answer.json().get("csrf_token", self._token)
        return answer

    def sign_in(self, username: str, password: str) -> requests.Response:
        """Submit the sign-in form."""
        answer = self.submit("/sign-in", {"username": username, "password": password, "next": "/articles"})
        if answer.status_code == 303:
            self.get(answer.headers["Location"])
        return answer

    def _remember_token(self, answer: requests.Response) -> None:
        if found := re.search(r'name="csrf_token" value="([^"]+)"', answer.text):
            self._token = found[1]


def is_live(url: str, ca_file: Path) -> bool:
    """Whether a server answers ``/livez`` without an error; before it listens, it does not."""
    client = BrowserClient(url, ca_file)
    try:
        return client.http.get(f"{url}/livez", timeout=5, allow_redirects=False).status_code < 500
    except OSError:  # also the errors of requests
        return False
    finally:
        client.http.close()


def expect(condition: object, what: str) -> None:
    """Raise ``WalkthroughError`` unless the condition holds."""
    if not condition:
        raise WalkthroughError(what)


def status(answer: requests.Response, wanted: int) -> requests.Response:
    """Return the response, or raise ``WalkthroughError`` if it has another status."""
    request = answer.request
    seen = (
        f"{request.method} {request.path_url} -> {answer.status_code}, expected {wanted}: {answer.text[:300]}"
    )
    expect(answer.status_code == wanted, seen)
    return answer

"""The mix of readers that ``make verify-deploy`` measures, for Locust: list 3, detail 2, search 1.

    pip install locust
    locust -f locustfile.py --host https://knowledge.example.jp --users 1000 --spawn-rate 20

``users.txt`` (or what MKS_LOAD_USERS names) holds a name and a password a line; readers take them in turn. Use
accounts made for it, never people's, and lift ``edge.sign_in_per_minute`` while they all come from one address.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from pathlib import Path
from urllib.parse import quote

from locust import FastHttpUser, between, task
from locust.exception import StopUser

WORDS = ("養生", "コンクリート", "足場", "鉄筋", "安全", "品質")
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_OK, _SEE_OTHER, _TRIES = 200, 303, 20
USERS = Path(os.environ.get("MKS_LOAD_USERS", "users.txt"))
_accounts = itertools.cycle(
    line.split(maxsplit=1) for line in USERS.read_text(encoding="utf-8").splitlines() if line
)


class Reader(FastHttpUser):
    """A reader, with one to three seconds between two pages."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        """Sign in once; the cookie holds the session. Retried if the server is busy."""
        name, password = next(_accounts)
        for _ in range(_TRIES):
            if self._signs_in(name, password):
                return
            time.sleep(1)
        raise StopUser

    def _signs_in(self, name: str, password: str) -> bool:
        page = self.client.get("/sign-in", headers={"Accept": "text/html"})
        token = TOKEN.search(page.text or "")
        if token is None:
            return False
        form = {"username": name, "password": password, "csrf_token": token[1], "next": "/articles"}
        headers = {"Origin": self.host, "Accept": "text/html"}
        with self.client.post(
            "/sign-in", data=form, headers=headers, allow_redirects=False, catch_response=True
        ) as answer:
            if answer.status_code != _SEE_OTHER:
                answer.failure(f"not signed in: {answer.status_code}")
            return bool(answer.status_code == _SEE_OTHER)

    @task(3)
    def listing(self) -> None:
        """The list, which most people open first."""
        self._read("/articles", "list")

    @task(2)
    def detail(self) -> None:
        """One article."""
        self._read(f"/articles/{random.randrange(1, 40)}", "detail")  # noqa: S311 - a reader's choice

    @task(1)
    def search(self) -> None:
        """Search for words of two or more characters."""
        self._read(f"/articles?q={quote(random.choice(WORDS))}", "search")  # noqa: S311 - a reader's choice

    def _read(self, path: str, name: str) -> None:
        """Request a page; everything else is a failure: a redirect to the sign-in page would be fast, too."""
        with self.client.get(path, name=name, allow_redirects=False, catch_response=True) as answer:
            if answer.status_code != _OK:
                answer.failure(str(answer.status_code))

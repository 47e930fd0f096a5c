"""The Django adapter as the documentation shows it, under a real server with Redis: the admin site signs in."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contrib_served import SNIPPETS, Browser, served
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel"),
]
PASSWORD = "long enough for all"
SET_UP = """
import django_app
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("check", fail_level="ERROR")
User.objects.create_superuser("alice", password={password!r})
"""


@pytest.fixture
def browser(redis_server: RedisServer, tmp_path: Path) -> Iterator[Browser]:
    environment = {"MKS_ENV": "development", "MKS_REDIS_URL": redis_server.url, "MKS_STORE_BUDGET": "5s"}
    subprocess.run(
        [sys.executable, "-c", SET_UP.format(password=PASSWORD)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SNIPPETS), **environment},
        check=True,
        timeout=60,
    )
    with served("django_app:application", log=tmp_path / "log", environment=environment) as found:
        yield found


def sign_in(browser: Browser) -> None:
    page = browser.ask("/admin/login/", Accept="text/html")
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body.decode())[0]
    form = {"username": "alice", "password": PASSWORD, "next": "/admin/", "csrfmiddlewaretoken": token}
    answer = browser.ask("/admin/login/", form, Accept="text/html")
    assert (answer.status, answer.headers["Location"]) == (302, "/admin/")


def test_the_admin_site_is_used_in_all_processes_until_the_sign_out(browser: Browser) -> None:
    assert browser.ask("/basket/helmet").json == {"user": "", "basket": ["helmet"]}
    planted = browser.copy()
    sign_in(browser)
    assert sorted(browser.cookies) == ["csrftoken", "mks-session"]
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda _: browser.copy().ask("/admin/", Accept="text/html"), range(12)))
    assert all(b"alice" in page.body for page in pages)
    assert browser.ask("/basket/gloves").json == {"user": "alice", "basket": ["helmet", "gloves"]}
    assert planted.ask("/basket/bait").json["user"] == ""
    stolen = browser.copy()
    token = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', pages[0].body)[0].decode()
    assert browser.ask("/admin/logout/", {"csrfmiddlewaretoken": token}, Accept="text/html").status == 200
    assert "mks-session" not in browser.cookies
    ended = stolen.ask("/admin/", Accept="text/html")
    assert (ended.status, ended.headers["Location"]) == (303, "/admin/login/?next=%2Fadmin%2F")


def test_limits_and_cache_are_shared_and_an_outage_is_told(
    browser: Browser, redis_server: RedisServer
) -> None:
    assert [browser.ask("/reset").status for _ in range(4)] == [200, 200, 200, 429]
    browser.ask("/basket/helmet")
    before = dict(browser.cookies)
    redis_server.stop()
    outage = browser.ask("/basket/gloves")
    assert (outage.status, outage.headers.get("Set-Cookie"), browser.cookies) == (503, None, before)
    redis_server.start()
    wait_until(
        lambda: Browser(browser.port).ask("/basket/x").status == 200, what="the session store to be back"
    )

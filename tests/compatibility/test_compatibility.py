"""Applications from the package index, unedited: what works raw works hardened, with the settings of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import compatibility_page
from compatibility_walks import BEHIND_NGINX, NAMES, Served, Step, described, walked
from deploy_host import HOST, Host
from testbed.polling import wait_until

pytest_plugins = ["knowledge_browser"]
pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(300)]


_DEPLOYED = """
[site]
name = "live"
[app]
kind = "{kind}"
target = "hardened:app"
server = "gunicorn"
needs = []
[edge]
[tls]
[upkeep]
[stores]
statement_timeout = "1s"
"""


@pytest.mark.parametrize("name", NAMES)
def test_what_works_raw_works_hardened(name: str, chromium: Any, tmp_path: Path) -> None:
    first = _differences(name, chromium, tmp_path / "first")
    # What the wrappers break is broken again; what a race in the application's own pages breaks is not.
    second = first and _differences(name, chromium, tmp_path / "second")
    assert not second, "\n".join([*first, "again:", *second])


def _differences(name: str, chromium: Any, folder: Path) -> list[str]:
    """Walk through an application in each way; return what is not as it is raw, or not as published."""
    application = described(name)
    logs = ""

    def steps(mode: str, **options: Any) -> dict[str, Step]:
        nonlocal logs
        served = Served(application, folder / mode, **options)
        served.start()
        try:
            return walked(application, chromium, served.url, patience=5 if mode == "bare" else 30)
        finally:
            served.stop()
            logs += f"\n{mode}:\n{served.log[-3000:]}"

    folder.mkdir()
    raw = steps("raw", hardened=False)
    bare = steps("bare", hardened=True)
    hardened = steps("whole", hardened=True, settings=True) if application.settings_count else bare
    different = [f"raw: {step}: {result.reason}" for step, result in raw.items() if not result.works]
    different += [
        f"hardened: {step}: {result.reason} {result.new(raw[step])}"
        for step, result in hardened.items()
        if not result.is_whole(raw[step])
    ]
    published = compatibility_page.results().get(name, {}).get("steps")
    without = {step: bare[step].is_whole(raw[step]) for step in raw}
    if without != published:
        different.append(f"without settings: {without}, published: {published}")
    return [*different, logs] if different else []


@pytest.mark.nginx
@pytest.mark.parametrize("name", BEHIND_NGINX)
def test_the_kits_nginx_lets_all_of_it_through(
    name: str, chromium: Any, chromium_path: str, certificates: Any, tmp_path: Path
) -> None:
    application = described(name)
    raw = Served(application, tmp_path / "raw", hardened=False)
    served = Served(application, tmp_path / "served", hardened=True, settings=True)
    host = Host(certificates, name="live", base=_DEPLOYED.format(kind=application.kind), source=served.folder)
    flags = [
        "--headless",
        "--no-sandbox",
        "--ignore-certificate-errors",
        f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
    ]
    browser = chromium.browser_type.launch(executable_path=chromium_path, args=flags)
    try:
        raw.start()
        host.render()
        socket_file, given = host.socket_file(), host.application_variables(redis_url="", postgres_url="")
        served.start_behind(
            socket_file, {key: text for key, text in given.items() if text}, socket_file.exists
        )
        socket_file.chmod(0o666)  # as the kit's unit opens it to nginx's account
        host.start_nginx()
        wait_until(lambda: (answer := host.ask("/")) is not None and answer.status < 500, timeout=60)
        before = walked(application, chromium, raw.url)
        behind = walked(application, browser, f"https://{HOST}:{host.https}")
        assert {
            step: (result.reason, result.new(before[step]))
            for step, result in behind.items()
            if not result.is_whole(before[step])
        } == {}
    finally:
        browser.close()
        for each in (raw, served, host):
            each.stop()


@pytest.mark.parametrize("name", NAMES)
def test_the_published_overhead_is_small(name: str) -> None:
    result = compatibility_page.results()[name]
    if result["raw"] < 500:  # pages of more than 2 ms
        assert result["hardened"] > result["raw"] * 0.85


def test_the_page_shows_the_results_and_the_settings() -> None:
    for file, text in compatibility_page.pages().items():
        assert file.read_text("utf-8") == text, f"{file.name}: run `make compatibility`"

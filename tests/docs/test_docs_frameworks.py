"""The pages on frameworks say what the programs beside them do."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from mks_hardening.contrib import django_app, fastapi_app, flask_app
from mks_hardening.contrib.django_app import _system_checks
from mks_hardening.contrib.flask_app._commands import commands
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_asgi

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "en" / "how-to" / "flask-and-django.md"
ASGI_PAGE = PAGE.with_name("asgi-frameworks.md")
SNIPPETS = ROOT / "docs" / "snippets" / "frameworks"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel")


def fences() -> list[list[str]]:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [[line for line in fence.splitlines() if line] for fence in found]


def test_flask_starts_as_the_page_says_in_two_lines() -> None:
    program = (SNIPPETS / "flask_app.py").read_text("utf-8")
    start = fences()[0][-2:]
    assert start[0] in program
    assert start[1].removesuffix(")") in program


def test_django_starts_as_the_page_says_in_four_lines() -> None:
    program, lines = (SNIPPETS / "django_app.py").read_text("utf-8"), fences()[1]
    assert len(lines) == 4
    for text in re.findall(r'"(mks_hardening[\w.]+)"', "".join(lines)):
        assert f'"{text}"' in program
    assert lines[-1].partition("  #")[0] in program


def test_names_on_the_page_exist() -> None:
    text = PAGE.read_text("utf-8")
    for name in ("Hardening", "current_session", "current_csrf_token", "exempt", "limit"):
        assert name in text
        assert hasattr(flask_app, name)
    for name in ("HardeningMiddleware", "hardened", "logging_config", "template_context"):
        assert name in text
        assert hasattr(django_app, name)
    assert re.findall(r"flask mks ([\w| \[\]-]+)`", text)
    assert all(name in text for name in commands.commands)


def test_every_finding_of_django_is_on_the_page() -> None:
    source = inspect.getsource(_system_checks)
    errors = sorted(set(re.findall(r'"(E\d{3})"', source)))
    warnings = sorted(set(re.findall(r'"(W\d{3})"', source)))
    text = PAGE.read_text("utf-8")
    assert f"`mks_hardening.{errors[0]}` to `{errors[-1]}` and `{warnings[0]}` to `{warnings[-1]}`" in text


def test_the_lines_of_the_asgi_page_harden_what_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async def other_app(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    monkeypatch.setenv("MKS_ENV", "development")
    fence = re.findall(r"```python\n(.*?)```", ASGI_PAGE.read_text("utf-8"), re.DOTALL)[0]
    names: dict[str, Any] = {"app": FastAPI(), "other_app": other_app}
    exec(fence, names)  # noqa: S102 - lines of our own documentation
    for app in (names["app"], names["application"]):
        assert call_asgi(app, "/livez").status == 200


def test_the_test_client_of_starlette_reaches_the_application_as_the_page_says() -> None:
    app = FastAPI()
    settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "www.example.com"})
    fastapi_app.Hardening(app, settings)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    fence = re.findall(r"```python\n(.*?)```", ASGI_PAGE.read_text("utf-8"), re.DOTALL)[1]
    names: dict[str, Any] = {"app": app, "TestClient": TestClient}
    exec(fence, names)  # noqa: S102 - lines of our own documentation
    assert names["client"].get("/livez").status_code == 200
    with names["socket"]:
        pass
    assert TestClient(app).get("/").status_code == 400
    with pytest.raises(WebSocketDenialResponse), names["client"].websocket_connect("/socket"):
        pass


def test_the_page_docs_may_load_what_it_is_made_of() -> None:
    app = runpy.run_path(str(SNIPPETS / "fastapi_docs.py"))["app"]
    page = call_asgi(app, "/docs")
    loaded = re.findall(
        r'<(?:script src|link [^>]*rel="stylesheet" href)="(https://[^/"]+)', page.body.decode()
    )
    policy = page.header("Content-Security-Policy")
    assert loaded == ["https://cdn.jsdelivr.net"] * 2
    assert policy is not None
    assert f"script-src {loaded[0]} 'unsafe-inline'" in policy
    assert f"style-src {loaded[0]}" in policy
    assert "jsdelivr" not in str(call_asgi(app, "/openapi.json").header("Content-Security-Policy"))


def test_every_dependency_is_on_the_page() -> None:
    text = ASGI_PAGE.read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)", text, re.MULTILINE)
    assert {*rows} == {*fastapi_app.__all__} - {"Hardening"}

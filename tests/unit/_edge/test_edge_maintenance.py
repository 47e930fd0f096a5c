"""Maintenance mode through both shells."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.cli import main
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import MaintenanceSwitch

Reply = tuple[int, dict[str, str], bytes]


def through_wsgi(path: str, headers: dict[str, str], peer: str, **options: Any) -> Reply:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    app = wsgi.MaintenanceMiddleware(application, **options)
    found = call_wsgi(app, path=path, headers=headers, environ={"REMOTE_ADDR": peer})
    return found.status, {name.lower(): value for name, value in found.headers}, found.body


def through_asgi(path: str, headers: dict[str, str], peer: str, **options: Any) -> Reply:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": fields, "client": (peer, 1)}
    asyncio.run(asgi.MaintenanceMiddleware(application, **options)(scope, send, send))  # type: ignore[arg-type]
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], got, sent[1]["body"]


@pytest.fixture
def switch(tmp_path: Path) -> MaintenanceSwitch:
    return MaintenanceSwitch(tmp_path / "maintenance", check_interval=0)


@pytest.fixture(params=[through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, switch: MaintenanceSwitch) -> Callable[..., Reply]:
    def send(path: str = "/", *, peer: str = "192.0.2.1", accept: str = "", **options: Any) -> Reply:
        headers = {"Accept": accept} if accept else {}
        reply: Reply = request.param(path, headers, peer, **{"switch": switch, **options})
        return reply

    return send


def test_requests_pass_while_the_switch_is_off(ask: Callable[..., Reply]) -> None:
    assert ask()[0] == 200


def test_requests_get_503_while_it_is_on(ask: Callable[..., Reply], switch: MaintenanceSwitch) -> None:
    switch.turn_on()
    status, headers, body = ask(retry_after=90.5)
    assert status == 503
    assert headers["retry-after"] == "91"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "application/problem+json"
    assert b"maintenance" in body
    switch.turn_off()
    assert ask()[0] == 200


def test_browsers_get_the_page(ask: Callable[..., Reply], switch: MaintenanceSwitch) -> None:
    switch.turn_on()
    status, headers, body = ask(page="<h1>工事中</h1>", accept="text/html,*/*")
    assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert body == "<h1>工事中</h1>".encode()
    assert ask(page="<h1>x</h1>", accept="application/json")[1]["content-type"] == "application/problem+json"
    assert ask(accept="text/html")[1]["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status/now"])
def test_probes_and_listed_paths_pass(
    ask: Callable[..., Reply], switch: MaintenanceSwitch, path: str
) -> None:
    switch.turn_on()
    assert ask(path, pass_paths=("/livez", "/readyz", "/status/"))[0] == 200
    assert ask("/status/../x", pass_paths=("/status/",))[0] == 503


@pytest.mark.parametrize(
    ("peer", "status"),
    [("198.51.100.7", 200), ("::ffff:198.51.100.7", 200), ("2001:db8::1", 200), ("192.0.2.1", 503)],
)
def test_operators_pass(ask: Callable[..., Reply], switch: MaintenanceSwitch, peer: str, status: int) -> None:
    switch.turn_on()
    assert ask(peer=peer, pass_networks=["198.51.100.0/24", "2001:db8::/32"])[0] == status


def test_the_file_is_looked_at_once_per_interval(tmp_path: Path) -> None:
    clock = FrozenClock()
    switch = MaintenanceSwitch(tmp_path / "maintenance", check_interval=1, clock=clock)
    assert not switch.is_on()
    (tmp_path / "maintenance").touch()
    assert not switch.is_on()
    clock.advance(1)
    assert switch.is_on()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_file_that_cannot_be_looked_at_leaves_the_last_known_state(
    switch: MaintenanceSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch.turn_on()
    assert switch.is_on()

    def denied(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    assert switch.is_on()


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"pass_networks": ["198.51.100.7/24"]}, "pass_networks"),
        ({"pass_networks": ["office"]}, "pass_networks"),
        ({"pass_paths": ["/"]}, "pass_paths"),
        ({"retry_after": -1}, "retry_after"),
        ({"page": ""}, "page"),
        ({"switch": "on"}, "switch"),
    ],
)
def test_wrong_options_are_refused_by_parameter(
    ask: Callable[..., Reply], options: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(**options)
    assert refused.value.parameter == parameter


def test_the_command_turns_it_on_and_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "maintenance"
    for command, status, shown in (
        ("status", 1, "off"),
        ("on", 0, "on"),
        ("on", 0, "on"),
        ("status", 0, "on"),
        ("off", 0, "off"),
        ("off", 0, "off"),
        ("status", 1, "off"),
    ):
        assert main(["maintenance", command, str(file)]) == status
        assert capsys.readouterr().out == f"maintenance mode is {shown}\n"
    assert not file.exists()
    assert main(["maintenance", "on", "/no/such/folder/file"]) == 2
    assert "/no/such/folder" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["", "/no/such/folder/file", 5])
def test_a_switch_needs_a_folder(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        MaintenanceSwitch(path)

"""``check``: which sources are read, what is refused, and what is said when something cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mks_check import CheckReport, check
from mks_check.production_check.facts import Facts
from mks_check.production_check.runner import judge
from mks_hardening.exceptions import ConfigurationError

GOOD = {"MKS_ALLOWED_HOSTS": "www.example.com"}


def ids(report: CheckReport) -> set[str]:
    return {finding.id for finding in report.findings}


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text, "utf-8")
    return folder


def test_a_good_environment_has_no_findings() -> None:
    report = check(environ=GOOD)
    assert report.findings == ()
    assert len(report.checked) >= 20


def test_without_arguments_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert "MKS-SET-003" in ids(check())


def test_files_alone_do_not_judge_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    report = check(files=[written(tmp_path, redis_conf="maxmemory 100mb\nappendonly yes\n")])
    assert report.findings == ()


def test_an_env_file_gives_places(tmp_path: Path) -> None:
    written(tmp_path, shop_env='# of the shop\nMKS_ALLOWED_HOSTS=a.example\nexport DEBUG="1"\n')
    finding = check(env_file=tmp_path / "shop.env").findings[0]
    assert (finding.id, finding.file, finding.line) == ("MKS-SET-003", str(tmp_path / "shop.env"), 3)


def test_a_line_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    written(tmp_path, shop_env="MKS_ALLOWED_HOSTS=a.example\nno variable\n")
    report = check(env_file=tmp_path / "shop.env")
    assert [finding.evidence for finding in report.findings] == [f"{tmp_path / 'shop.env'}: line 2"]


def test_an_env_file_among_the_files_is_judged(tmp_path: Path) -> None:
    written(tmp_path, shop_env="MKS_ALLOWED_HOSTS=a.example\nDEBUG=1\n")
    assert ids(check(files=[tmp_path])) == {"MKS-SET-003"}


@pytest.mark.parametrize("missing", ["none.conf", "none.env"])
def test_a_missing_file_is_a_failure(tmp_path: Path, missing: str) -> None:
    report = check(files=[tmp_path / missing])
    assert report.failed == (f"{tmp_path / missing} cannot be read",)


def test_a_missing_env_file_is_a_failure(tmp_path: Path) -> None:
    report = check(env_file=tmp_path / "none.env")
    assert report.failed
    assert not {name for name in report.checked if name.startswith("MKS-SET")}


def test_a_named_file_of_no_known_kind_is_said(tmp_path: Path) -> None:
    written(tmp_path, notes_txt="hello")
    assert ids(check(files=[tmp_path / "notes.txt"])) == {"MKS-RUN-001"}
    assert ids(check(files=[tmp_path])) == set()


@pytest.mark.parametrize(
    ("name", "text", "clue"),
    [
        ("nginx_conf", "http { server {", "the end comes before"),
        ("nginx_conf", 'http { server_name "a; }', "a quote without end"),
        ("nginx_conf", "http { } }", "an unexpected '}'"),
        (
            "nginx_conf",
            "http { server { include other.conf; } }",
            "include other.conf is not among the files",
        ),
        ("nginx_conf", "http { content_by_lua_block { return } }", "embedded Lua"),
        ("gunicorn.conf_py", "workers = = 2", "no Python"),
        ("deploy_toml", "[edge", "no TOML"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, text: str, clue: str) -> None:
    report = check(files=[written(tmp_path, **{name: text})])
    assert clue in " ".join(each.evidence for each in report.findings if each.id == "MKS-RUN-001")


def test_binary_files_of_a_known_kind_are_said(tmp_path: Path) -> None:
    (tmp_path / "redis.conf").write_bytes(b"\xff\xfe\x00")
    assert ids(check(files=[tmp_path])) == {"MKS-RUN-001"}


def test_a_check_that_fails_is_reported_and_the_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    report = judge(Facts(settings=object()))  # type: ignore[arg-type] # what no source gives
    broken = [finding.evidence for finding in report.findings]
    assert "MKS-SET-003 could not be made (AttributeError)" in broken


# --- the application


def module(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> str:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    name = f"shop_of_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize(
    "text",
    [
        "raise RuntimeError('no')",
        "import sys; sys.exit(3)",
        "1 +",
        "import no_such_module_at_all",
        "app = None.x",
        "class Odd:\n    def __getattr__(self, name): raise RuntimeError(name)\nboom()",
    ],
)
def test_a_module_that_breaks_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    name = module(monkeypatch, tmp_path, text)
    assert "MKS-APP-001" in ids(check(environ=GOOD, app=f"{name}:app"))


@pytest.mark.parametrize("target", ["", "shop", ":app", "shop:", "shop:app:app", "no_such_module_at_all:app"])
def test_a_target_that_cannot_be_found_is_a_finding(target: str) -> None:
    assert "MKS-APP-001" in ids(check(environ=GOOD, app=target))


def test_an_object_that_raises_everywhere_is_a_finding_at_most() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    report = check(environ=GOOD, app=Hostile())
    assert "MKS-RUN-001" not in ids(report)


def test_a_factory_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "from flask import Flask\ndef make():\n    app = Flask('shop')\n    app.debug = True\n    return app\n"
    name = module(monkeypatch, tmp_path, text)
    assert "MKS-APP-002" in ids(check(environ=GOOD, app=f"{name}:make()"))


def flask_app() -> Any:
    from flask import Flask

    app = Flask("shop")
    app.config["SECRET_KEY"] = "dev"

    @app.route("/delete")
    def delete() -> str:
        return ""

    @app.post("/save")
    def save() -> str:
        return ""

    return app


def fastapi_app() -> Any:
    import time

    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware

    app = FastAPI(debug=True)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)

    @app.get("/")
    async def page() -> str:
        time.sleep(0)  # noqa: ASYNC251 - what the check finds
        return ""

    return app


def hardened_flask() -> Any:
    from flask import Flask

    from mks_hardening.contrib.flask_app import Hardening
    from mks_hardening.settings import HardeningSettings

    app = Flask("shop")
    app.config["MAX_CONTENT_LENGTH"] = 1000
    Hardening(app, HardeningSettings.from_env(environ=GOOD))
    return app


def hardened_fastapi() -> Any:
    from fastapi import Depends, FastAPI

    from mks_hardening.contrib.fastapi_app import Hardening, limit
    from mks_hardening.settings import HardeningSettings

    app = FastAPI(openapi_url=None)
    Hardening(app, HardeningSettings.from_env(environ={**GOOD, "MKS_MAX_BODY": "1MiB"}))

    @app.get("/", dependencies=[Depends(limit("search"))])
    async def page() -> str:
        return ""

    return app


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            flask_app,
            {
                "MKS-APP-003",
                "MKS-APP-004",
                "MKS-APP-006",
                "MKS-APP-008",
                "MKS-APP-010",
                "MKS-APP-018",
                "MKS-APP-019",
                "MKS-APP-020",
                "MKS-APP-027",
            },
        ),
        (
            fastapi_app,
            {
                "MKS-APP-002",
                "MKS-APP-009",
                "MKS-APP-010",
                "MKS-APP-017",
                "MKS-APP-020",
                "MKS-APP-024",
                "MKS-APP-027",
            },
        ),
    ],
)
def test_what_is_missing_is_found(make: Callable[[], Any], expected: set[str]) -> None:
    assert expected <= ids(check(environ=GOOD, app=make()))


@pytest.mark.parametrize("make", [hardened_flask, hardened_fastapi])
def test_a_hardened_application_lacks_a_shared_store_at_most(make: Callable[[], Any]) -> None:
    report = check(environ=GOOD, app=make())
    assert ids(report) == {"MKS-APP-015"}


def test_what_everybody_may_send_is_found_in_our_own_middleware() -> None:
    from mks_hardening.wsgi import ProxyTrust, TrustedProxyMiddleware

    def app(environ: Any, start_response: Any) -> list[bytes]:
        return []

    report = check(environ=GOOD, app=TrustedProxyMiddleware(app, trust=ProxyTrust(["0.0.0.0/0"])))
    assert "MKS-APP-012" in ids(report)


def test_the_check_of_the_flask_adapter_is_part_of_it() -> None:
    app = hardened_flask()
    app.config["SESSION_COOKIE_NAME"] = "other"
    assert "MKS-FLASK-004" in ids(check(environ=GOOD, app=app))


# --- this machine


def test_this_machine_can_be_checked() -> None:
    report = check(environ=GOOD, host=True)
    assert "MKS-RUN-001" not in ids(report)
    assert "MKS-HOST-005" in report.checked


def test_permissions_are_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x" * 40)
    key.chmod(0o644)
    report = check(environ={**GOOD, "SHOP_API_TOKEN_FILE": str(key)}, host=True)
    assert "MKS-HOST-002" in ids(report)
    key.chmod(0o600)
    assert "MKS-HOST-002" not in ids(check(environ={**GOOD, "SHOP_API_TOKEN_FILE": str(key)}, host=True))


# --- arguments


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"environ": 1}, "environ"),
        ({"environ": {}, "env_file": "a"}, "env_file"),
        ({"env_file": 1}, "env_file"),
        ({"files": "a"}, "files"),
        ({"files": 1}, "files"),
        ({"files": [1]}, "files"),
        ({"host": 1}, "host"),
        ({"url": ""}, "url"),
        ({"url": "ftp://a.example"}, "url"),
        ({"url": "https://user:pw@a.example"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://a.example:99999"}, "url"),
        ({"url": "https://a.example/a b"}, "url"),
        ({"url": "https://a.example", "ca_file": "/no/such/file"}, "ca_file"),
        ({"body_limit": 0}, "body_limit"),
        ({"silence": "MKS-SET-001=a"}, "silence"),
        ({"baseline": 1}, "baseline"),
        ({"lang": "de"}, "lang"),
        ({"clock": 1}, "clock"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(**wrong)
    assert caught.value.parameter == name

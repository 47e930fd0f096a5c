"""Serve an application from the package index as it is and hardened, and walk through both in Chromium."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mks_hardening
from testbed.process import ServerProcess, start_on_free_port

ROOT = Path(__file__).parents[2]
DESCRIPTIONS = ROOT / "tests" / "compatibility" / "applications"
LOCKS = ROOT / "requirements" / "compatibility"

_HARDENED = """
from application import app
from mks_hardening.compose import harden_{kind}
from mks_hardening.settings import HardeningSettings

app = harden_{kind}(app, HardeningSettings.from_env())
"""
_SERVERS = {
    "wsgi": ("gunicorn", "--worker-class=gthread", "--threads=4"),
    "asgi": ("uvicorn", "--no-access-log"),
}
_TCP = {"wsgi": "--bind=127.0.0.1:{}", "asgi": "--port={}"}
_UNIX = {"wsgi": "--bind=unix:{}", "asgi": "--uds={}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application that nobody here wrote.

    Attributes:
        name: of its description, and of its lock file in ``requirements/compatibility``.
        distribution: its name in the package index.
        kind: ``"wsgi"`` or ``"asgi"``.
        framework: what it is built on, for the page.
        start: the module that its own documentation gives for a server; defines ``app``.
        walk: visits its pages, in steps.
        files: what it starts with, by path.
        commands: arguments of its environment's programs that make its data.
        settings: environment variables that it needs to be whole when it is hardened.
        headers: the file that ``MKS_HEADERS_FILE`` names.
        looser: what these allow beyond the preset, and why, in English and Japanese.
        page: the path that is measured.
        options: of the browser's context.
    """

    name: str
    distribution: str
    kind: str
    framework: str
    start: str
    walk: Callable[[Visit], None]
    files: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[tuple[str, ...], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    headers: str = ""
    looser: tuple[str, str] = ("", "")
    page: str = "/"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def program_headers(self) -> dict[str, str]:
        """Return the fields of a request without a browser."""
        given = self.options.get("http_credentials")
        if given is None:
            return {}
        pair = f"{given['username']}:{given['password']}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    @property
    def settings_count(self) -> int:
        """Return how many settings it needs: environment variables, and values of the file."""
        return len(self.settings) + _values(tomllib.loads(self.headers))


def _values(table: Mapping[str, Any]) -> int:
    return sum(_values(each) if isinstance(each, dict) else 1 for each in table.values())


def described(name: str) -> Application:
    """Return the application that a module of ``tests/compatibility/applications`` describes."""
    spec = importlib.util.spec_from_file_location(f"compatibility_{name}", DESCRIPTIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    application: Application = module.APPLICATION
    assert application.name == name
    assert application.settings_count <= 5, "an application must be whole with five settings"
    return application


NAMES = sorted(file.stem for file in DESCRIPTIONS.glob("*.py"))
BEHIND_NGINX = ("fava", "marimo", "piccolo_admin")


# --- environments and servers


def environment(name: str) -> Path:
    """Return the interpreter of an environment with what the lock file lists, made when it is missing."""
    home = Path(os.environ.get("COMPATIBILITY_VENVS", ROOT / ".venv-compatibility"))
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = home / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "whole").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    locked = ("install", "-q", "--require-hashes", "--no-deps", "-r", str(lock))
    uv = home.parent / ".venv" / "bin" / "uv"
    if uv.exists():
        _run(str(uv), "venv", "-q", "--python", sys.executable, str(folder))
        _run(str(uv), "pip", *locked, "--python", str(python), UV_SYSTEM_CERTS="1")
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(python), "-m", "pip", *locked)
    for older in set(home.glob(f"{name}-*")) - {folder}:
        shutil.rmtree(older, ignore_errors=True)
    (folder / "whole").touch()
    return python


def seeded(application: Application) -> Path:
    """Return a folder with the application's files, as its commands left them."""
    python = environment(application.name)
    content = repr((application.start, sorted(application.files.items()), application.commands))
    folder = python.parents[1] / f"seed-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    for older in folder.parent.glob("seed-*"):
        shutil.rmtree(older)
    work = folder.parent / "seed"
    shutil.rmtree(work, ignore_errors=True)
    for name, content in {"application.py": application.start, **application.files}.items():
        file = work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")
    for program, *arguments in application.commands:
        _run(str(python.with_name(program)), *arguments, cwd=work, PYTHONPATH=str(work), HOME=str(work))
    return work.rename(folder)


def _run(*command: str, cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**_clean(), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def _clean() -> dict[str, str]:
    """Return the variables of this process without those of the tests."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MKS_", "COV"))
    }


class Served:
    """An application with data of its own, served on loopback.

    Args:
        application: what to serve.
        folder: an empty one.
        hardened: whether it is wrapped by ``harden_wsgi`` or ``harden_asgi``.
        settings: whether with the settings of its description.
    """

    def __init__(
        self, application: Application, folder: Path, *, hardened: bool, settings: bool = False
    ) -> None:
        self.application, self.folder = application, folder
        self.port = 0
        self._server: ServerProcess | None = None
        self._python = environment(application.name)
        self._module = "hardened" if hardened else "application"
        shutil.copytree(seeded(application), folder)
        # Of this library alone: the other packages of this environment must not be visible.
        library = folder / "library"
        library.mkdir()
        (library / "mks_hardening").symlink_to(Path(mks_hardening.__file__).parent)
        (folder / "hardened.py").write_text(_HARDENED.format(kind=application.kind), "utf-8")
        self.variables = {"PYTHONPATH": f"{folder}:{library}", "HOME": str(folder)}
        if hardened:
            self.variables["MKS_ENV"] = "development"
        if settings:
            self.variables |= application.settings
            if application.headers:
                (folder / "headers.toml").write_text(application.headers, "utf-8")
                self.variables["MKS_HEADERS_FILE"] = str(folder / "headers.toml")

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def version(self) -> str:
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        return _run(str(self._python), "-c", code, self.application.distribution).strip()

    @property
    def processor_time(self) -> float:
        """Return the seconds that the server and its workers have computed."""
        assert self._server is not None
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # The clock of a process, as clock_getcpuclockid(3) computes it.
        return sum(time.clock_gettime((~each << 3) | 2) for each in (pid, *map(int, children)))

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> None:
        start_on_free_port(self._start)

    def _start(self, port: int) -> None:
        self.variables["APPLICATION_URL"] = f"http://localhost:{port}"
        self._serve(_TCP[self.application.kind].format(port), lambda: _responds(port, self.application))
        self.port = port

    def start_behind(
        self, socket_file: Path, variables: Mapping[str, str], ready: Callable[[], object]
    ) -> None:
        """Start on a socket that a proxy knows, with the environment of that host."""
        socket_file.parent.mkdir(exist_ok=True)
        self.variables = {**variables, **self.variables, "MKS_ENV": variables["MKS_ENV"]}
        self._serve(_UNIX[self.application.kind].format(socket_file), ready)

    def _serve(self, where: str, ready: Callable[[], object]) -> None:
        words = (*_SERVERS[self.application.kind], where, f"{self._module}:app")
        self._server = ServerProcess(
            [str(self._python), "-m", *words],
            log=self.folder / "server.log",
            ready=ready,
            cwd=self.folder,
            identity={"env": {**_clean(), **self.variables}},
        )
        self._server.start(timeout=60)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


def _responds(port: int, application: Application) -> bool:
    """Return whether the application responds: gunicorn listens before it imports the application."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", application.page, headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status < 500
    return False


# --- what the browser says


@dataclass(slots=True)
class Step:
    """What happened in one step.

    Attributes:
        works: whether the page did what the step expects.
        blocked: messages about what a policy of the browser blocked.
        errors: other errors of the console and of scripts.
        failed: requests without a response, or with an error status.
        reason: why it does not work.
    """

    works: bool = False
    blocked: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    reason: str = ""

    def new(self, raw: Step) -> set[str]:
        """Return what the browser says here and not about the application as it is."""
        return (self.blocked | self.errors | self.failed) - (raw.blocked | raw.errors | raw.failed)

    def is_whole(self, raw: Step) -> bool:
        return (self.works or not raw.works) and not self.new(raw)


class Visit:
    """A walk through a served application, in a browser's context of its own.

    Attributes:
        page: the page that is open.
        url: address of the application.
        steps: what happened, by name of the step.
    """

    def __init__(self, browser: Any, url: str, *, patience: float, **options: Any) -> None:
        self.url = url
        self.steps: dict[str, Step] = {}
        self._patience = patience * 1000
        self._step = Step()
        self.context = browser.new_context(
            ignore_https_errors=True, viewport={"width": 1280, "height": 900}, **options
        )
        self.context.set_default_timeout(self._patience)
        # What is outside of this machine answers, and with nothing.
        self.context.route(
            re.compile(r"^https?://(?!(localhost|127\.0\.0\.1|[\w.]+\.test)[:/])"),
            lambda route: route.fulfill(status=200, body="", headers={"Access-Control-Allow-Origin": "*"}),
        )
        self.context.on("page", self._listen)
        self.page = self.context.new_page()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record what happens in this step; an error ends the step, and the walk goes on."""
        from playwright.sync_api import Error

        self.steps[name] = self._step = Step()
        self.context.set_default_timeout(self._patience)
        try:
            yield
            with contextlib.suppress(Error):  # a page may poll
                self.page.wait_for_load_state("networkidle", timeout=5000)
        except (Error, AssertionError) as error:
            self._step.reason = f"{type(error).__name__}: {error}"
        else:
            self._step.works = True

    def go(self, path: str) -> Any:
        """Open a page, which must not be an error."""
        response = self.page.goto(self.url + path)
        assert response is None or response.status < 400, f"{response.status} {path}"
        return response

    def sees(self, selector: str) -> Any:
        """Wait until an element is visible, and return it."""
        found = self.page.locator(selector).first
        found.wait_for()
        return found

    def send(self, method: str, path: str, *, expect: int, **options: Any) -> Any:
        """Send a request as a program does that is no browser, with the cookies of the page."""
        response = self.context.request.fetch(self.url + path, method=method, max_redirects=0, **options)
        assert response.status == expect, f"{response.status} {method} {path}: {response.text()[:300]}"
        return response

    def fetch(self, path: str, *, expect: int = 200, **init: Any) -> str:
        """Send a request as a script of the page does; return the body."""
        status, text = self.page.evaluate(
            "async ([path, init]) => { const r = await fetch(path, init); return [r.status, await r.text()] }",
            [path, init],
        )
        assert status == expect, f"{status} {path}: {text[:300]}"
        return str(text)

    def download(self, act: Callable[[], object]) -> bytes:
        """Do what starts a download, and return the file."""
        with self.page.expect_download() as started:
            act()
        return Path(started.value.path()).read_bytes()

    def close(self) -> None:
        self.context.close()

    def _listen(self, page: Any) -> None:
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._step.errors.add(self._plain(str(error))))
        page.on("requestfailed", self._lost)
        page.on("response", self._answered)

    def _heard(self, message: Any) -> None:
        if message.type != "error" or message.text.startswith("Failed to load resource"):
            return  # the request is counted
        text = self._plain(message.text)
        if _BLOCKED.search(text):
            self._blocked(text.partition(" violates")[0])
        else:
            self._step.errors.add(text)

    def _lost(self, request: Any) -> None:
        reason = request.failure or ""
        if reason == "net::ERR_ABORTED":
            return  # the page was left, or it is a download
        text = f"{request.method} {self._plain(request.url)}: {reason}"
        if reason == "csp" or "BLOCKED" in reason:
            self._blocked(text)
        else:
            self._step.failed.add(text)

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self._step.failed.add(f"{response.request.method} {self._plain(response.url)}: {response.status}")

    def _blocked(self, text: str) -> None:
        self._step.blocked.add(text)
        # The step is not whole, whatever follows.
        self.context.set_default_timeout(min(self._patience, 2000))

    def _plain(self, text: str) -> str:
        """Return the text without what differs in each run."""
        text = re.sub(r"\?[^\s'\")]*", "", " ".join(text.replace(self.url, "").split()))
        return re.sub(r"[0-9a-f]*\d[0-9a-f-]*", "#", text)[:300]


_BLOCKED = re.compile(r"Content Security Policy|Refused to|X-Frame-Options|Cross-Origin|has been blocked")


def walked(application: Application, browser: Any, url: str, *, patience: float = 30) -> dict[str, Step]:
    """Walk through a served application."""
    visit = Visit(browser, url, patience=patience, **application.options)
    try:
        application.walk(visit)
    finally:
        visit.close()
    return visit.steps

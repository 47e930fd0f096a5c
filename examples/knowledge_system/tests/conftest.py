"""A hardened application on its own database, and a browser without JavaScript."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jinja2 import FileSystemBytecodeCache
from sqlalchemy import update
from werkzeug.routing import Rule
from werkzeug.test import Client, TestResponse

from knowledge_system import app as application
from knowledge_system import database
from knowledge_system.demo import walkthrough
from knowledge_system.demo.application import create_demo_app
from knowledge_system.models import User
from knowledge_system.services.knowledge import stored_content
from knowledge_system.settings import AREAS, DEMO_PASSWORD, AppSettings
from mks_hardening.security import SecretBox, hash_password
from mks_hardening.security.passwords import hashing
from mks_hardening.security.passwords._argon2 import Argon2
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock
from testbed import polling
from testbed.forked_programs import ForkedPrograms
from testbed.postgres_server import PostgresServer

pytest_plugins = ["testbed.fixtures", "knowledge_browser"]

URL = "https://localhost:8443"
KEY = SecretBox.generate_key()
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')

# Setting up logging changes the whole process; what it does is tested in a process of its own.
QUIET = AREAS - {"logging", "notify"}

_NOBODY = "$argon2id$v=19$m=64,t=1,p=1$Zt9xh7PX7QGlXMUalgtnKA$tzvkGs1q0minBipWrf0yBCxFa45XDEPWvPsqKmH7HS0"

_PATIENCE = {"MKS_STORE_BUDGET": "1s"}  # a machine that runs browsers stands still for longer than 0.1 s


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Hash with little memory in one pass: the cost of a sign-in is tested in the library, and paid here often."""
    hasher = hashing.process_hasher()
    before = hasher._scheme, hasher._expected
    hasher._scheme = Argon2(memory_kib=64, passes=1, nobody=_NOBODY)
    hasher._expected = (hasher._scheme,)
    hasher._work.clear()  # or every check takes as long as the most expensive one of this process
    yield
    hasher._scheme, hasher._expected = before
    hasher._work.clear()


@pytest.fixture(autouse=True)
def _cheap_passwords() -> Iterator[None]:
    with cheap_passwords():
        yield


@pytest.fixture(scope="session")
def filled_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("knowledge") / "filled.db"
    fill(make_settings(file.parent, database_url=f"sqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def filled_postgres(_session_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a filled database; a copy takes a tenth of the time."""
    name = _session_postgres.create_database()
    fill(make_settings(tmp_path_factory.mktemp("filled"), database_url=_session_postgres.url(name)))
    return name


@pytest.fixture
def own_database(filled_database: Path, tmp_path: Path) -> Path:
    """A copy, for a process that writes: what it left in the filled one would be found by every later test."""
    return shutil.copy(filled_database, tmp_path / "own.db")


def fill(settings: AppSettings) -> None:
    with cheap_passwords(), application.open_database(settings) as (engine, search):
        database.upgrade(engine, settings, clock=time)
        sessions = application.session_factory(engine)
        database.fill(sessions, search, password=DEMO_PASSWORD, clock=time)
        with sessions.begin() as session:
            # In today's form, or each first sign-in of a test would store it anew.
            session.execute(update(User).values(password_hash=hash_password(DEMO_PASSWORD)))


def make_settings(
    folder: Path,
    *,
    database_url: str,
    areas: frozenset[str] = QUIET,
    demo: bool = True,
    four_eyes: bool = True,
    offices: dict[str, int] | None = None,
    own: Mapping[str, Any] | None = None,
    **variables: str,
) -> AppSettings:
    environ = {
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": "localhost",
        "MKS_HTTPS_PORT": "8443",
        "MKS_SECRET_KEYS": KEY,
        "DATABASE_URL": database_url,
        **_PATIENCE,
        **variables,
    }
    return AppSettings(
        hardening=HardeningSettings.from_env(environ=environ),
        demo=demo,
        data_dir=folder,
        areas_off=AREAS - areas,
        four_eyes=four_eyes,
        offices=tuple((ip_network(network), rate) for network, rate in (offices or {}).items()),
        **(own or {}),
    )


@pytest.fixture
def settings_at(tmp_path: Path) -> Callable[..., AppSettings]:
    """Settings for a database of one's own: ``settings_at("sqlite:///x.db")``."""
    return lambda url, **options: make_settings(tmp_path, database_url=url, **options)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2026, 11, 25, tzinfo=UTC))


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> FileSystemBytecodeCache:
    """Templates are compiled once, not once for each application."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


_builders: dict[tuple[object, ...], Any] = {}
_compile_builder = Rule._compile_builder


def _compiled_once(rule: Rule, *append_unknown: bool) -> Any:
    """The function that builds an address: for the 141 rules of an application they take 30 ms to compile."""
    if rule.defaults:  # their values are compiled in
        return _compile_builder(rule, *append_unknown)
    key = rule.rule, tuple(rule._trace), append_unknown
    if key not in _builders:
        _builders[key] = _compile_builder(rule, *append_unknown)
    return _builders[key]


@pytest.fixture
def make_app(
    tmp_path: Path,
    filled_database: Path,
    clock: FrozenClock,
    compiled_templates: FileSystemBytecodeCache,
    *,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Any]]:
    monkeypatch.setattr(Rule, "_compile_builder", _compiled_once)
    made = []
    filled = {f"sqlite:///{tmp_path / 'own.db'}"}

    def fill_or_copy(settings: AppSettings, url: str) -> None:
        if url.startswith("postgresql"):
            server: PostgresServer = request.getfixturevalue("_session_postgres")
            name = url.rpartition("/")[2]
            if url == server.url(name):
                server.copy_database(request.getfixturevalue("filled_postgres"), name)
                return
        fill(settings)

    def make(*, database_url: str = "", is_filled: bool = False, **options: Any) -> Any:
        if not database_url:
            file = tmp_path / f"app{len(made)}.db"
            shutil.copy(filled_database, file)
        settings = make_settings(tmp_path, database_url=database_url or f"sqlite:///{file}", **options)
        if database_url and database_url not in filled and not is_filled:
            fill_or_copy(settings, database_url)
            filled.add(database_url)
        create = create_demo_app if settings.demo else application.create_app
        made.append(create(settings, clock=clock))
        made[-1].jinja_env.bytecode_cache = compiled_templates
        return made[-1]

    yield make
    for app in made:
        app.extensions["knowledge"].close()


@pytest.fixture
def app(make_app: Callable[..., Any]) -> Any:
    return make_app()


class Browser:
    """A person: keeps cookies, sends the token of the page seen last and, like a browser, the origin."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.client = Client(app)
        self.token = ""

    def send(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {"Accept": "text/html", "Accept-Language": "ja", **options.pop("headers", {})}
        if method not in {"GET", "HEAD"}:
            headers.setdefault("Origin", URL)
        headers = {name: value for name, value in headers.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = self.client.open(
                path,
                method=method,
                base_url=URL,
                headers=headers,
                environ_base={"REMOTE_ADDR": "127.0.0.1"},
                buffered=True,
                **options,
            )
        if found := TOKEN.search(answer.get_data(as_text=True) if answer.mimetype == "text/html" else ""):
            self.token = found[1]
        return answer

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, data: Any = None, **headers: str) -> TestResponse:
        fields = {"csrf_token": self.token, **data} if isinstance(data, dict) else data
        return self.send("POST", path, data=fields, headers=headers)

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        kind = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        return self.send(
            method,
            path,
            headers={"Accept": "application/json", **kind, **headers},
            **(options if body is not None else {}),
        )

    def sign_in(self, username: str, password: str = DEMO_PASSWORD) -> TestResponse:
        return self.post("/sign-in", {"username": username, "password": password, "next": "/articles"})


@pytest.fixture
def browser(app: Any) -> Browser:
    return Browser(app)


@pytest.fixture
def stranger() -> Callable[[Any], Browser]:
    """Somebody who is not signed in: ``stranger(app)``."""
    return Browser


@pytest.fixture
def visit(app: Any) -> Callable[..., Browser]:
    """Somebody signed in: ``visit("tanaka")``."""

    def signed_in(username: str, *, at: Any = None) -> Browser:
        person = Browser(at or app)
        assert person.sign_in(username).status_code == 303
        return person

    return signed_in


@pytest.fixture(scope="session")
def stored_articles() -> list[dict[str, Any]]:
    return stored_content.articles()


class Demo(NamedTuple):
    process: subprocess.Popen[bytes]
    folder: Path
    https: int
    http: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def ca(self) -> Path:
        return self.folder / "tls" / "ca.pem"

    def walk(self) -> int:
        return walkthrough.run(self.url, http_url=f"http://localhost:{self.http}", ca_file=self.ca)


def clean_environment(**variables: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MKS_", "DATABASE_URL", "PYTHONWARNINGS"))
    }
    return {**kept, **variables}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "knowledge_system", *map(str, arguments)]


@pytest.fixture
def free_port() -> int:
    return polling.free_port()


@pytest.fixture(scope="session")
def forked_programs() -> Iterator[ForkedPrograms]:
    """A process that has imported the application, as the commands and the servers of production do."""
    programs = ForkedPrograms(
        "knowledge_system.cli", "knowledge_system.app", "knowledge_system.configuration_check"
    )
    yield programs
    programs.close()


@pytest.fixture
def run_command(forked_programs: ForkedPrograms) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``knowledge-system`` to its end: ``run_command("seed", "--data", folder, MKS_X="y")``."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        words = map(str, arguments)
        return forked_programs.run("-m", "knowledge_system", *words, env=clean_environment(**variables))

    return run


@contextmanager
def running_demo(folder: Path, **variables: str) -> Iterator[Demo]:
    for _ in range(3):
        demo = _started_demo(folder, variables)
        try:
            if demo is not None:
                yield demo
                return
        finally:
            if demo is not None:
                demo.process.terminate()
                demo.process.wait(60)
        # Another process took a port between its choice and the start.
    raise AssertionError(folder.with_suffix(".log").read_text())


def _started_demo(folder: Path, variables: dict[str, str]) -> Demo | None:
    """Start the demonstration; return ``None`` if one of its ports is in use."""
    https, http = polling.free_port(), polling.free_port()
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            command("demo", "--data", folder, "--https-port", https, "--http-port", http),
            env=clean_environment(**{**_PATIENCE, **variables}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 120
    while "Ctrl-C" not in log.read_text():
        if process.poll() is not None:
            assert "is in use" in log.read_text(), log.read_text()
            return None
        if time.monotonic() >= deadline:
            process.kill()
            process.wait(60)
            raise AssertionError(log.read_text())
        time.sleep(0.05)
    return Demo(process, folder, https, http)


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start a demonstration with these variables: ``start_demo(MKS_REDIS_URL=...)``."""
    with ExitStack() as stack:
        yield lambda **variables: stack.enter_context(running_demo(tmp_path / "demo", **variables))


@pytest.fixture(scope="session")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demonstration on embedded defaults, for tests that leave it in order."""
    with running_demo(tmp_path_factory.mktemp("shared") / "demo") as demo:
        yield demo

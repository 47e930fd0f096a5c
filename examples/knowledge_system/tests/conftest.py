"""A hardened application on its own database, and a browser without JavaScript."""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from knowledge_system import app as application
from knowledge_system import database
from knowledge_system.models import User
from knowledge_system.services import content
from knowledge_system.settings import AREAS, DEMO_PASSWORD, AppSettings
from mks_hardening.security import SecretBox
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock
from sqlalchemy import update
from werkzeug.security import generate_password_hash
from werkzeug.test import Client, TestResponse

pytest_plugins = ["testbed.fixtures"]

URL = "https://localhost:8443"
KEY = SecretBox.generate_key()
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')

# Setting up logging changes the whole process; what it does is tested in a process of its own.
QUIET = AREAS - {"logging", "notify"}


@pytest.fixture(scope="session")
def filled_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("knowledge") / "filled.db"
    settings = make_settings(file.parent, database_url=f"sqlite:///{file}")
    engine, search = application.open_database(settings)
    database.create_tables(engine, search)
    sessions = application.session_factory(engine)
    database.fill(sessions, search, password=DEMO_PASSWORD, clock=time)
    with sessions.begin() as session:
        # A hash that is quick to check: the tests sign in a thousand times.
        cheap = generate_password_hash(DEMO_PASSWORD, method="pbkdf2:sha256:1")
        session.execute(update(User).values(password_hash=cheap))
    engine.dispose()
    return file


def make_settings(
    folder: Path, *, database_url: str, areas: frozenset[str] = QUIET, demo: bool = True, **variables: str
) -> AppSettings:
    environ = {
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": "localhost",
        "MKS_HTTPS_PORT": "8443",
        "MKS_SECRET_KEYS": KEY,
        "DATABASE_URL": database_url,
        **variables,
    }
    return AppSettings(
        hardening=HardeningSettings.from_env(environ=environ),
        demo=demo,
        data_dir=folder,
        areas=areas,
        demo_password=DEMO_PASSWORD if demo else "",
    )


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def make_app(tmp_path: Path, filled_database: Path, clock: FrozenClock) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**options: Any) -> Any:
        file = tmp_path / f"app{len(made)}.db"
        shutil.copy(filled_database, file)
        made.append(
            application.create_app(
                make_settings(tmp_path, database_url=f"sqlite:///{file}", **options), clock=clock
            )
        )
        return made[-1]

    yield make
    for app in made:
        app.extensions["knowledge"].engine.dispose()


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
            answer = self.client.open(path, method=method, base_url=URL, headers=headers, buffered=True, **options)
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
def visit(app: Any) -> Callable[..., Browser]:
    """Somebody signed in: ``visit("tanaka")``."""

    def signed_in(username: str, *, at: Any = None) -> Browser:
        person = Browser(at or app)
        assert person.sign_in(username).status_code == 303
        return person

    return signed_in


@pytest.fixture(scope="session")
def stored_articles() -> list[dict[str, Any]]:
    return content.articles()


def article(**changed: Any) -> dict[str, Any]:
    """A good body for ``POST /api/knowledge``."""
    return {
        "title": "盛土の締固め管理",
        "category": "土工",
        "summary": "締固め度の測り方",
        "body": "## 管理基準\n\n- 締固め度 **90%** 以上",
        "tags": ["盛土", "締固め"],
        "status": "draft",
        **changed,
    }

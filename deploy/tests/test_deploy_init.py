"""``mks-deploy init``: what is found, what is asked, what is proven, and that nothing else is written."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_deploy.cli import main
from mks_deploy.init.candidates import find_candidates
from mks_deploy.init.import_check import check_import
from mks_deploy.init.init_command import InitError, Wanted, new_settings
from mks_deploy.init.settings_text import site_name
from mks_deploy.init.source_tree import SourceTree
from mks_deploy.settings.settings_file import read_settings

APPLICATIONS = Path(__file__).parent / "apps"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FACTORY = "import flask as f\ndef create_app(config=None):\n    app = f.Flask('x')\n    return app\n"
HARDEN = "from mks_hardening.compose import harden_asgi, harden_wsgi\n"
SETTINGS = "from shop.settings.base import *\nDEBUG = False\n"
BASE = "WSGI_APPLICATION = 'shop.wsgi.application'\n"
MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings.local')\n"
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.production")
application = get_wsgi_application()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """A source tree of these files."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / "app" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return tmp_path / "app"

    return make


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"hello.py": FLASK}, {"hello:app": "wsgi"}),
        ({"hello.py": "import flask\nsite: flask.Flask = flask.Flask('x')\n"}, {"hello:site": "wsgi"}),
        ({"shop/__init__.py": FACTORY}, {"shop:create_app()": "wsgi"}),
        ({"src/notes/api.py": "from fastapi import FastAPI as F\napi = F()\n"}, {"notes.api:api": "asgi"}),
        (
            {"shop/__init__.py": FACTORY, "wsgi.py": "from shop import create_app\napp = create_app()\n"},
            {"wsgi:app": "wsgi"},
        ),
        (
            {"shop/__init__.py": FACTORY, "shop/main.py": "from . import create_app\napp = create_app()\n"},
            {"shop.main:app": "wsgi"},
        ),
        (
            {
                "main.py": "from fastapi import FastAPI\napp = FastAPI()\nsub = FastAPI()\napp.mount('/s', sub)\n"
            },
            {"main:app": "asgi"},
        ),
        (
            {"main.py": "from quart import Quart\nif __name__ == '__main__':\n    app = Quart('x')\n"},
            {},
        ),
        (
            {
                "main.py": "try:\n    from starlette.applications import Starlette\n    app = Starlette()\n"
                "except ImportError:\n    app = None\n"
            },
            {"main:app": "asgi"},
        ),
        # What wraps an application is what is served.
        (
            {"a.py": HARDEN + "import falcon\ninner = falcon.App()\nouter = harden_wsgi(inner, s)\n"},
            {"a:outer": "wsgi"},
        ),
        ({"a.py": HARDEN + "def app(e, s):\n    return []\napp = harden_wsgi(app, s)\n"}, {"a:app": "wsgi"}),
        ({"a.py": HARDEN + "app = harden_asgi(inner, s)\n"}, {"a:app": "asgi"}),
        (
            {
                "a.py": f"{FLASK}from werkzeug.middleware.proxy_fix import ProxyFix\n"
                "app.wsgi_app = ProxyFix(app.wsgi_app)\nserved = ProxyFix(app)\n"
            },
            {"a:served": "wsgi"},
        ),
        (
            {"a.py": f"{FLASK}from asgiref.wsgi import WsgiToAsgi\nserved = WsgiToAsgi(app)\n"},
            {"a:served": "asgi"},
        ),
        (
            {"a.py": "with Configurator() as config:\n    app = config.make_wsgi_app()\n"},
            {"a:app": "wsgi"},
        ),
        (
            {
                "a.py": "from django.core.asgi import get_asgi_application\n"
                "from mks_hardening.contrib.django_app import hardened\n"
                "application = hardened(get_asgi_application())\n"
            },
            {"a:application": "asgi"},
        ),
        # Not applications: words in comments and texts, another class, tests, environments, broken files.
        ({"a.py": "# app = Flask()\nX = 'Flask(__name__)'\n"}, {}),
        ({"a.py": "class Flask:\n    pass\napp = Flask()\n"}, {}),
        (
            {"test_a.py": FLASK, "tests/b.py": FLASK, ".hidden/c.py": FLASK, "broken.py": "def (\n" + FLASK},
            {},
        ),
        ({"odd/pyvenv.cfg": "", "odd/lib/x.py": FLASK, "node_modules/y.py": FLASK}, {}),
        ({"a.py": "from flask import Flask\ndef create_app(config):\n    return Flask('x')\n"}, {}),
        # A requirement is no application, and does not say which framework one is of.
        ({"requirements.txt": "flask\ndjango-environ\n"}, {}),
        ({"requirements.txt": "django\n", "hello.py": FLASK}, {"hello:app": "wsgi"}),
        # Django: what its settings name, in the module that the settings take everything from.
        (
            {
                "manage.py": MANAGE,
                "shop/wsgi.py": WSGI,
                "shop/settings/base.py": BASE,
                "shop/settings/local.py": "from .base import *\n",
                "shop/settings/production.py": SETTINGS,
            },
            {"shop.wsgi:application": "wsgi"},
        ),
        (
            {
                "manage.py": MANAGE.replace(".local", ""),
                "shop/settings.py": BASE + "ASGI_APPLICATION = 'shop.asgi.application'\n",
            },
            {"shop.wsgi:application": "wsgi", "shop.asgi:application": "asgi"},
        ),
        ({"manage.py": MANAGE, "shop/wsgi.py": WSGI}, {"shop.wsgi:application": "wsgi"}),
        # A Procfile says what is started; it goes before everything else.
        (
            {"Procfile": "web: gunicorn -w 4 -b 0.0.0.0:$PORT 'shop:create_app()'\n", "hello.py": FLASK},
            {"shop:create_app()": ""},
        ),
        ({"Procfile": "web: uvicorn --factory notes:make --port 80\n"}, {"notes:make()": "asgi"}),
        ({"Procfile": "web: gunicorn -k uvicorn.workers.UvicornWorker a:b\n"}, {"a:b": "asgi"}),
        (
            {
                "Procfile": "worker: celery -A shop\nweb: exec gunicorn --bind :80 shop.wsgi\n",
                "shop/wsgi.py": "",
            },
            {"shop.wsgi:application": ""},
        ),
        ({"Procfile": "web: node server.js\n", "hello.py": FLASK}, {"hello:app": "wsgi"}),
        ({"Procfile": "web: gunicorn 'unclosed\n", "hello.py": FLASK}, {"hello:app": "wsgi"}),
        ({"a.py": FLASK, "b.py": FLASK}, {"a:app": "wsgi", "b:app": "wsgi"}),
    ],
    ids=str,
)
def test_what_is_found(tree: Callable[..., Path], files: dict[str, str], found: dict[str, str]) -> None:
    candidates = find_candidates(SourceTree(tree(files)))
    assert {candidate.target: candidate.kind for candidate in candidates} == found
    assert all(candidate.evidence for candidate in candidates)


@given(st.text(), st.binary())
def test_no_file_stops_the_search(tmp_path_factory: pytest.TempPathFactory, text: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "a.py").write_text(text, encoding="utf-8", errors="surrogatepass")
    (folder / "b.py").write_bytes(data)
    (folder / "Procfile").write_bytes(b"web: gunicorn " + data)
    (folder / "pyproject.toml").write_bytes(data)
    (folder / "requirements.txt").write_bytes(data)
    (folder / "hello.py").write_text(FLASK)
    tree = SourceTree(folder)
    assert tree.modules["hello"]
    assert isinstance(find_candidates(tree), list)
    assert isinstance(tree.requirements, dict)


@given(st.text(max_size=60))
def test_every_text_gives_a_name(text: str) -> None:
    from mks_deploy.settings.value_types import a_slug

    assert a_slug.read(site_name(text))


# --- the file -----------------------------------------------------------------------------------


def wanted(folder: Path, **options: Any) -> Wanted:
    given_options = {"hosts": ("a.example",), "mail": "o@a.example", "proven": False, **options}
    return Wanted(folder=folder, **given_options)


def test_facts_stand_in_the_file_with_their_places(tree: Callable[..., Path]) -> None:
    folder = tree(
        {
            "shop/__init__.py": FLASK
            + "import os, flask_migrate\nfrom os import environ as e\n"
            + "os.environ['STRIPE_API_KEY'], e.get('SHOP_LEVEL'), os.getenv('MAIL_PASSWORD_FILE')\n"
            + "os.environ['DATABASE_URL'], os.environ['REDIS_URL']\n"
            + "@app.get('/healthz')\ndef h(): return ''\n",
            "shop/static/site.css": "",
            "shop/tasks.py": "from celery import Celery\nqueue = Celery('x')\n",
            "requirements.txt": "Flask==3.1\npsycopg[binary]>=3\nredis\n",
        }
    )
    text = new_settings(wanted(folder), ask=None)
    made = read_settings(text)
    assert made.app.target == "shop:app"
    assert made.app.needs == ("postgresql", "redis")
    assert made.app.static == "shop/static"
    assert (made.app.live, made.app.ready) == ("/healthz", "/healthz")
    assert made.app.migrate == ("flask", "--app", "shop:app", "db", "upgrade")
    assert made.tasks.application == "shop.tasks:queue"
    assert {secret.variable: (secret.file, secret.as_value) for secret in made.secrets} == {
        "DATABASE_URL": ("database_url", True),
        "REDIS_URL": ("redis_url", True),
        "STRIPE_API_KEY": ("stripe_api_key", True),
        "MAIL_PASSWORD": ("mail_password", False),
    }
    assert "# read in shop/__init__.py:5\n# SHOP_LEVEL =" in text
    assert "# shop/__init__.py:5\nSTRIPE_API_KEY" in text
    assert "psycopg in requirements.txt; redis in requirements.txt" in text
    assert made.image.requirements == "requirements.txt"
    assert made.image.files == ("shop",)


# What the comments of a file say: the lines that the operator may have to complete.
OPEN = re.compile(r"(?m)^# (.+)\n# ([A-Z0-9_]+) = (.+)$")


def described(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """The tables that init writes, and what it leaves to the operator: the evidence and the proposed value."""
    text = new_settings(wanted(folder), ask=None)
    read_settings(text)
    return tomllib.loads(text), {name: (evidence, value) for evidence, name, value in OPEN.findall(text)}


@dataclass(frozen=True)
class Layout:
    """A source tree as a generator of projects leaves it, and what it needs."""

    folder: str
    target: str
    needs: list[str]
    static: str
    migrate: list[str]
    secrets: dict[str, Any]
    # What is left to the operator: whether it is required, and the value that is proposed.
    left: dict[str, tuple[bool, str]]
    requirements: str = "requirements.txt"
    tables: dict[str, Any] = field(default_factory=dict)


LAYOUTS = (
    Layout(
        "flask_factory",
        "autoapp:app",
        ["postgresql"],
        "shop/static",
        ["flask", "--app", "autoapp:app", "db", "upgrade"],
        {"DATABASE_URL": "variable", "SECRET_KEY": "variable"},
        {
            "MAIL_PASSWORD": (False, '"variable"'),
            "MAIL_SERVER": (False, '""'),
            "ITEMS_PER_PAGE": (True, '""'),
        },
        tables={"stores": {"database_scheme": "postgresql+psycopg"}},
    ),
    Layout(
        "django_two_settings",
        "config.wsgi:application",
        ["postgresql"],
        "var/staticfiles",
        ["python", "manage.py", "migrate", "--noinput"],
        {"DATABASE_URL": "variable", "DJANGO_SECRET_KEY": "variable"},
        {
            "DJANGO_ADMIN_URL": (True, '""'),
            "DJANGO_ALLOWED_HOSTS": (False, '""'),
            "DJANGO_DEBUG": (False, '"False"'),
            "DJANGO_PAGE_SIZE": (False, '"20"'),
            "DJANGO_TIME_ZONE": (False, '"UTC"'),
        },
        requirements="requirements/production.txt",
        tables={"variables": {"DJANGO_SETTINGS_MODULE": "config.settings.production"}},
    ),
    Layout(
        "fastapi_src",
        "articles.main:app",
        ["postgresql"],
        "src/articles/static",
        ["alembic", "upgrade", "head"],
        {
            "APP_DATABASE_URL": {"as": "variable", "from": "database_url"},
            "APP_JWT_SECRET": "variable",
        },
        {
            "APP_MAIL_KEY": (False, '"variable"'),
            "APP_PAGE_SIZE": (True, '""'),
            "APP_LOG_LEVEL": (False, '"INFO"'),
            "APP_ORIGINS": (False, '""'),
            "MAIL_SENDER": (True, '""'),
        },
        tables={"stores": {"database_scheme": "postgresql+asyncpg"}},
    ),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.folder)
def test_a_project_is_described_as_its_generator_left_it(layout: Layout) -> None:
    made, left = described(APPLICATIONS / layout.folder)
    app = made.pop("app")
    assert (app["target"], app["needs"]) == (layout.target, layout.needs)
    assert (app.get("static"), app.get("migrate")) == (layout.static, layout.migrate)
    assert app["ready"].strip("/") == "healthz"
    assert made["secrets"] == layout.secrets
    assert {name: ("no default" in why, value) for name, (why, value) in left.items()} == layout.left
    assert made["image"]["requirements"] == layout.requirements
    assert {name: made.get(name) for name in layout.tables} == layout.tables
    manage = [["python", "manage.py", "collectstatic", "--noinput"]]
    assert app.get("build") == (manage if "manage.py" in layout.migrate else None)


KIT_LOCK = (
    "flask==3.1\nmks-deploy==0.1\nmks-hardening[cache,celery]==0.1\npsycopg==3.2\nredis==7.3\ncelery==5.5\n"
)


@pytest.mark.parametrize(
    ("files", "needs"),
    [
        # What the deployment kit brings says nothing, whether the file notes it or not.
        ({"requirements.txt": KIT_LOCK}, []),
        ({"requirements.txt": "psycopg==3.2\n    # via mks-deploy\nredis==7.3  # via mks-hardening\n"}, []),
        ({"requirements.txt": "redis==7.3\n    # via\n    #   mks-deploy\n    #   mks-hardening\n"}, []),
        ({"requirements-dev.txt": "psycopg2\n", "requirements/test.in": "redis\n"}, []),
        ({"conftest.py": "", "shop/settings/local.py": "import redis\n"}, []),
        # Its own requirements.
        (
            {
                "requirements.txt": "redis==7.3\n    # via\n    #   -r requirements.in\n    #   mks-hardening\n"
            },
            ["redis"],
        ),
        ({"requirements.txt": "psycopg==3.2  # via -r requirements.in, mks-deploy\n"}, ["postgresql"]),
        ({"requirements.txt": KIT_LOCK + "psycopg2-binary==2.9\ndjango-redis==6\n"}, ["postgresql", "redis"]),
        ({"requirements.txt": "psycopg\n"}, ["postgresql"]),
        ({"requirements/base.txt": "asyncpg\n"}, ["postgresql"]),
        (
            {"pyproject.toml": '[project]\ndependencies = ["psycopg[binary]>=3", "mks-deploy"]\n'},
            ["postgresql"],
        ),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\nredis = "^5"\n'}, ["redis"]),
        # Its code, in spite of a lock file that says nothing.
        ({"b.py": "import psycopg\n"}, ["postgresql"]),
        ({"b.py": "def f():\n    from redis.asyncio import Redis\n"}, ["redis"]),
        ({"b.py": "from pydantic import PostgresDsn, RedisDsn\n"}, ["postgresql", "redis"]),
        ({"b.py": "URL = f'postgresql+psycopg://{user}@{host}/shop'\n"}, ["postgresql"]),
        ({"b.py": "E = {'ENGINE': 'django.contrib.gis.db.backends.postgis'}\n"}, ["postgresql"]),
        ({"b.py": "C = {'BACKEND': 'django.core.cache.backends.redis.RedisCache'}\n"}, ["redis"]),
        (
            {"b.py": "import os\nos.environ['SHOP_DB_URL'], os.getenv('SHOP_REDIS_URL')\n"},
            ["postgresql", "redis"],
        ),
        # What only looks alike.
        ({"b.py": "import redistribute, psycopgraph\nX = 'use redis or postgresql'\n"}, []),
        ({"b.py": "import os\nos.getenv('TEST_DATABASE_URL'), os.getenv('DATABASE_URLS_SEEN')\n"}, []),
        ({"shop/redis.py": "x = 1\n", "shop/b.py": "from .redis import x\nfrom . import redis\n"}, []),
    ],
    ids=str,
)
def test_servers_are_those_of_the_application_alone(
    tree: Callable[..., Path], files: dict[str, str], needs: list[str]
) -> None:
    made, _ = described(tree({"requirements.txt": KIT_LOCK, "hello.py": FLASK, **files}))
    assert made["app"]["needs"] == needs


HERE = "from pathlib import Path\nimport os\nBASE = Path(__file__).resolve().parent.parent\n"
FILE_DATABASES = {
    "django": (
        HERE
        + "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE / 'db.sqlite3'}}",
        "db.sqlite3",
    ),
    "django, elsewhere": (
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/srv/db'}}",
        "",
    ),
    "django, as a text": (
        (
            "import os\nNAME = str(os.path.join(os.path.dirname(__file__), 'data', 'db'))\n"
            "DATABASES = {'default': {'NAME': NAME, 'ENGINE': 'django.db.backends.sqlite3'}}"
        ),
        "shop/data/db",
    ),
    "sqlalchemy": ("engine = create_engine('sqlite:///./app.db?timeout=5')", "app.db"),
    "sqlalchemy, asyncio": ("engine = create_async_engine('sqlite+aiosqlite:///data/app.db')", "data/app.db"),
    "sqlmodel": ("name = 'data.db'\nurl = f'sqlite:///{name}'", "data.db"),
    "a folder of its own": (HERE + "url = f'sqlite:///{BASE}/data/app.db'", "data/app.db"),
    "joined": (
        "import os\nurl = 'sqlite:///' + os.path.join(os.path.dirname(__file__), 'app.db')",
        "shop/app.db",
    ),
    "flask-sqlalchemy": (
        "from flask_sqlalchemy import SQLAlchemy\napp.config.update(SQLALCHEMY_DATABASE_URI='sqlite:///shop.db')",
        "instance/shop.db",
    ),
    "sqlite3": ("import sqlite3\ndef get():\n    return sqlite3.connect('app.db', timeout=5)", "app.db"),
    "of Flask's tutorial": (
        (
            "import os, sqlite3\nfrom flask import current_app\n"
            "app.config.from_mapping(DATABASE=os.path.join(app.instance_path, 'flaskr.sqlite'))\n"
            "def get():\n    return sqlite3.connect(current_app.config['DATABASE'])"
        ),
        "instance/flaskr.sqlite",
    ),
    "in memory": ("import sqlite3\nsqlite3.connect(':memory:')", None),
    "in memory, by an address": ("engine = create_engine('sqlite:///:memory:')", None),
    "an address, which is PostgreSQL's": (
        "import os\nurl = os.environ.get('DATABASE_URL', 'sqlite:///app.db')",
        None,
    ),
    "none": ("x = 1", None),
}


@pytest.mark.parametrize("case", FILE_DATABASES)
def test_the_file_of_sqlite_is_found(tree: Callable[..., Path], case: str) -> None:
    code, found = FILE_DATABASES[case]
    folder = tree({"requirements.txt": KIT_LOCK, "hello.py": FLASK, "shop/b.py": code + "\n"})
    text = new_settings(wanted(folder), ask=None)
    assert read_settings(text).stores.sqlite == (found or "")
    assert ('# sqlite = ""' in text) == (found == "")


SETTINGS_CLASS = (
    "import pydantic as p\nfrom pydantic import Field\nfrom pydantic_settings import BaseSettings\n"
)
FROM = {"as": "variable", "from": "database_url"}


@pytest.mark.parametrize(
    ("source", "secrets", "left"),
    [
        ("import os\nos.environ['KIND'], os.environ.get('LEVEL', 'x')", {}, {"KIND": True, "LEVEL": False}),
        (
            "import os\nos.getenv('API_KEY'), os.getenv('A_TOKEN', '')",
            {"API_KEY": "variable"},
            {"A_TOKEN": False},
        ),
        ("import os\nos.getenv('SECRET_KEY', '')", {"SECRET_KEY": "variable"}, {}),
        ("import os\nos.environ.setdefault('KIND', 'x'), os.environ['lower'], os.environ[NAME]", {}, {}),
        # dj-database-url
        (
            "import dj_database_url as d\nD = {'default': d.config(conn_max_age=600)}",
            {"DATABASE_URL": "variable"},
            {},
        ),
        ("from dj_database_url import config\nconfig(env='SHOP_DB_URL')", {"SHOP_DB_URL": FROM}, {}),
        (
            "import dj_database_url\ndj_database_url.config('A_DATABASE_URL', 'sqlite://')",
            {"A_DATABASE_URL": FROM},
            {},
        ),
        # django-environ and environs
        ("import environ\nenviron.Env().db()", {"DATABASE_URL": "variable"}, {}),
        ("import environ\nenv = environ.Env()\nenv.db('DB_URL', default='sqlite://')", {"DB_URL": FROM}, {}),
        (
            "from a import env\nenv('KIND'), env.str('SORT'), env.int('SIZE', 3)",
            {},
            {"KIND": True, "SORT": True, "SIZE": False},
        ),
        (
            "import environ\nenv = environ.Env(DEBUG=(bool, False))\nenv('DEBUG'), env('KIND', default='x')",
            {},
            {"DEBUG": False, "KIND": False},
        ),
        ("import environ\nenv = environ.FileAwareEnv()\nenv.email_url()", {}, {"EMAIL_URL": True}),
        (
            "from environs import Env\nenv = Env()\nenv.read_env()\nenv.list('HOSTS'), env('A_TOKEN', None)",
            {},
            {"HOSTS": True, "A_TOKEN": False},
        ),
        # python-decouple
        (
            "from decouple import config\nconfig('KIND'), config('SIZE', default=3, cast=int)",
            {},
            {"KIND": True, "SIZE": False},
        ),
        # pydantic-settings
        (
            SETTINGS_CLASS + "class S(BaseSettings):\n    kind: str\n    size: int = 3\n"
            "    note: str | None = None\n"
            "    _x: int = 1\n    def f(self): pass\n    sort: str = Field(default='x')\n"
            "    part: str = Field(min_length=1)\n    tags: list[str] = Field(default_factory=list)\n"
            "    last: str = Field(...)\n    level: str = ...\n",
            {},
            {
                "KIND": True,
                "SIZE": False,
                "NOTE": False,
                "SORT": False,
                "PART": True,
                "TAGS": False,
                "LAST": True,
                "LEVEL": True,
            },
        ),
        (
            SETTINGS_CLASS
            + "class S(BaseSettings, env_prefix='shop_'):\n    kind: str\n    pin: p.SecretStr\n"
            "    broker: p.AmqpDsn\n    db_dsn: p.PostgresDsn\n",
            {"SHOP_PIN": "variable", "SHOP_BROKER": "variable", "SHOP_DB_DSN": FROM},
            {"SHOP_KIND": True},
        ),
        (
            SETTINGS_CLASS + "class B(BaseSettings):\n    class Config:\n        env_prefix = 'A_'\n"
            "class S(B):\n    kind: str\n    size: int = Field(3, alias='HOW_MANY')\n"
            "    sort: 'str' = Field('x', validation_alias=p.AliasChoices('SORT', 'KIND'))\n"
            "    old: p.Annotated[str, Field(env='OLDER')]\n",
            {},
            {"A_KIND": True, "HOW_MANY": False, "SORT": False, "OLDER": True},
        ),
        (
            "class BaseSettings: pass\nclass S(BaseSettings):\n    kind: str\nclass T(T):\n    kind: str\n",
            {},
            {},
        ),
    ],
)
def test_variables_are_found_however_they_are_read(
    tree: Callable[..., Path], source: str, secrets: dict[str, Any], left: dict[str, bool]
) -> None:
    made, found = described(tree({"hello.py": FLASK, "shop/conf.py": source}))
    assert made.get("secrets", {}) == secrets
    assert {name: "no default" in why for name, (why, _) in found.items()} == left


def test_a_class_of_settings_may_be_in_another_module(tree: Callable[..., Path]) -> None:
    base = (
        SETTINGS_CLASS
        + "class Base(BaseSettings):\n    model_config = SettingsConfigDict(env_prefix='APP_')\n"
    )
    own = "from shop.core import Base\nclass Settings(Base):\n    kind: str\n"
    _, found = described(tree({"hello.py": FLASK, "shop/core.py": base, "shop/conf.py": own}))
    assert found.keys() == {"APP_KIND"}


DJANGO = {
    "manage.py": MANAGE,
    "shop/wsgi.py": WSGI.replace(".production", ""),
    "shop/static/x.css": "",
}


@pytest.mark.parametrize(
    ("files", "static"),
    [
        ({"hello.py": FLASK, "static/x": ""}, "static"),
        ({"wsgi.py": FLASK, "app/__init__.py": "", "app/static/x": ""}, "app/static"),
        ({"src/notes/api.py": FLASK, "src/notes/static/x": ""}, "src/notes/static"),
        (
            {
                "a.py": FLASK,
                "app/b.py": "",
                "app/static/x": "",
                "app/admin/c.py": "",
                "app/admin/static/x": "",
            },
            "app/static",
        ),
        ({"a.py": FLASK, "app/b.py": "", "app/static/x": "", "web/b.py": "", "web/static/x": ""}, None),
        ({"a.py": FLASK, "node_modules/static/x": "", "files/static/x": ""}, None),
        *(
            ({**DJANGO, "shop/settings.py": HERE + f"STATIC_ROOT = {root}\n"}, static)
            for root, static in (
                ("BASE / 'staticfiles'", "staticfiles"),
                ("str(BASE / 'var' / 'static')", "var/static"),
                ("BASE.joinpath('var', 'static')", "var/static"),
                ("os.path.join(BASE, 'collected')", "collected"),
                ("os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'out')", "out"),
                ("Path(__file__).parents[1] / 'out'", "out"),
                ("'collected'", "collected"),
                ("'/var/www/static'", None),
                ("BASE.parent / 'static'", None),
                ("BASE", None),
                ("env('STATIC_ROOT')", None),
                ("STATIC_ROOT", None),
            )
        ),
        (
            {**DJANGO, "shop/settings.py": HERE + "STATICFILES_DIRS = [BASE / 'shop' / 'static']\n"},
            "shop/static",
        ),
        ({**DJANGO, "shop/settings.py": HERE + "STATICFILES_DIRS = []\n"}, None),
    ],
    ids=str,
)
def test_the_folder_of_static_files_is_found(
    tree: Callable[..., Path], files: dict[str, str], static: str | None
) -> None:
    made, _ = described(tree(files))
    assert made["app"].get("static") == static
    collects = static is not None and "STATIC_ROOT" in files.get("shop/settings.py", "")
    assert ("build" in made["app"]) == collects


FLASK_MIGRATE = "from flask_migrate import Migrate\n" + FLASK


@pytest.mark.parametrize(
    ("files", "migrate"),
    [
        ({"hello.py": FLASK_MIGRATE, "migrations/alembic.ini": ""}, "flask --app hello:app db upgrade"),
        ({"hello.py": FLASK, "alembic.ini": "", "migrations/env.py": ""}, "alembic upgrade head"),
        ({"hello.py": FLASK, "migrations/alembic.ini": ""}, "alembic -c migrations/alembic.ini upgrade head"),
        (
            {"src/notes/api.py": FLASK, "src/notes/alembic.ini": ""},
            "alembic -c src/notes/alembic.ini upgrade head",
        ),
        (
            {"hello.py": FLASK, "pyproject.toml": "[tool.alembic]\nscript_location = 'm'\n"},
            "alembic upgrade head",
        ),
        ({"hello.py": FLASK, "migrations/0001_first.sql": ""}, ""),
        (DJANGO, "python manage.py migrate --noinput"),
        ({f"src/{name}": text for name, text in DJANGO.items()}, "python src/manage.py migrate --noinput"),
    ],
    ids=str,
)
def test_the_command_that_changes_the_database_is_found(
    tree: Callable[..., Path], files: dict[str, str], migrate: str
) -> None:
    made, _ = described(tree(files))
    assert " ".join(made["app"].get("migrate", [])) == migrate


@pytest.mark.parametrize(
    ("source", "requirements", "scheme"),
    [
        ("import psycopg\n", "", None),
        ("from flask_sqlalchemy import SQLAlchemy\n", "", "postgresql+psycopg"),
        ("import sqlalchemy\n", "psycopg2-binary\n", None),
        ("from sqlalchemy.ext.asyncio import create_async_engine\n", "asyncpg\n", "postgresql+asyncpg"),
        ("from sqlalchemy.ext.asyncio import create_async_engine\n", "psycopg2\n", "postgresql+psycopg"),
        ("from sqlalchemy.ext import asyncio\nU = 'postgresql+asyncpg://x'\n", "", "postgresql+asyncpg"),
    ],
)
def test_the_driver_is_that_of_sqlalchemy(
    tree: Callable[..., Path], source: str, requirements: str, scheme: str | None
) -> None:
    code = f"import os\nos.environ['DATABASE_URL']\n{source}"
    made, _ = described(tree({"hello.py": FLASK, "shop/db.py": code, "requirements.txt": requirements}))
    assert made.get("stores", {}).get("database_scheme") == scheme


def test_without_an_address_of_health_the_file_says_so(tree: Callable[..., Path]) -> None:
    text = new_settings(wanted(tree({"hello.py": FLASK})), ask=None)
    assert 'better declare /readyz\nready = "/"' in text
    assert read_settings(text).app.hardened is False


def test_settings_of_production_go_before_those_of_development_that_wsgi_names(
    tree: Callable[..., Path],
) -> None:
    """As `wagtail start` writes them; each takes names from two modules, of which one need not be there."""
    also = "try:\n    from .local import *\nexcept ImportError:\n    pass\n"
    files = {
        "manage.py": MANAGE.replace(".local", ".dev"),
        "shop/wsgi.py": WSGI.replace(".production", ".dev"),
        "shop/settings/base.py": BASE + "DEBUG = False\nSTATIC_ROOT = 'static'\n",
        "shop/settings/dev.py": "from .base import *\nDEBUG = True\n" + also,
        "shop/settings/production.py": "from .base import *\n" + also,
    }
    text = new_settings(wanted(tree(files)), ask=None)
    made = tomllib.loads(text)
    assert made["variables"]["DJANGO_SETTINGS_MODULE"] == "shop.settings.production"
    assert made["app"]["static"] == "static"
    assert "# shop/settings/production.py; shop/wsgi.py:4 names shop.settings.dev" in text
    assert "DEBUG" not in text


def test_settings_that_show_visitors_the_source_are_told(tree: Callable[..., Path]) -> None:
    files = {
        "manage.py": MANAGE.replace(".local", ""),
        "shop/wsgi.py": WSGI.replace(".settings.production", ".settings"),
        "shop/settings.py": BASE + "DEBUG = True\nALLOWED_HOSTS = []\nSECRET_KEY = 'x'\n",
    }
    text = new_settings(wanted(tree(files)), ask=None)
    assert (
        "; DEBUG = True in shop/settings.py:2 shows every visitor the source: read it from a variable; "
        "ALLOWED_HOSTS = [] in shop/settings.py:3 refuses every visitor: name the host; "
        "SECRET_KEY in shop/settings.py:4 is in git: read it from a variable; "
        "no STATIC_ROOT: nobody serves the styles of packages, such as the admin's\n" in text
    )
    assert "mks-deploy app python manage.py createsuperuser\nmigrate = " in text


@pytest.mark.parametrize(
    ("files", "media"),
    [
        (
            {**DJANGO, "shop/settings.py": HERE + "MEDIA_ROOT = BASE / 'media'\nMEDIA_URL = 'files/'\n"},
            {"folder": "media", "url": "/files/"},
        ),
        # Not public: the application sends them.
        ({"hello.py": FLASK + "app.config['UPLOAD_FOLDER'] = 'uploads'\n"}, {"folder": "uploads"}),
        (
            {
                "hello.py": FLASK
                + "import os\nUPLOAD_FOLDER = os.path.join(os.path.dirname(__file__), 'static', 'up')\n"
            },
            {"folder": "static/up", "url": "/static/up/"},
        ),
        ({"hello.py": FLASK + "UPLOAD_FOLDER = '/srv/uploads'\n"}, None),
        ({"hello.py": FLASK + "import os\nUPLOAD_FOLDER = os.environ['UPLOADS']\n"}, None),
        ({"hello.py": FLASK}, None),
    ],
)
def test_where_uploads_are_written_to_is_found(
    tree: Callable[..., Path], files: dict[str, str], media: dict[str, str] | None
) -> None:
    made, _ = described(tree(files))
    assert made.get("media") == media


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"folder": Path("/absent")}, "/absent is no folder"),
        ({"hosts": ()}, "--host must be given"),
        ({"mail": ""}, "--mail must be given"),
        ({"hosts": ("A.example:80",)}, "site.hosts must be a host name"),
        ({"mail": "nobody"}, "upkeep.alert_mail must be a mail address"),
        ({"name": "Big Shop"}, "site.name must be 3 to 24"),
        ({"target": "hello"}, "--app must be module:object"),
        ({"target": "hello:app; rm"}, "--app must be module:object"),
        ({"target": "hello:app"}, "whether hello:app is WSGI or ASGI is unknown"),
    ],
)
def test_what_is_wrong_or_missing_is_told(
    tree: Callable[..., Path], options: dict[str, Any], error: str
) -> None:
    folder = tree({"hello.py": FLASK})
    with pytest.raises(InitError, match=error.replace("(", r"\(")):
        new_settings(wanted(options.pop("folder", folder), **options), ask=None)


def test_nothing_that_is_found_is_told(tree: Callable[..., Path]) -> None:
    with pytest.raises(InitError, match="no application was found"):
        new_settings(wanted(tree({"a.py": ""})), ask=None)


def test_of_two_applications_somebody_chooses(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree({"a.py": FLASK, "b.py": FLASK})
    words = ["init", str(folder), "--host", "a.example", "--mail", "o@a.example", "--no-import"]
    assert main([*words, "--yes"]) == 2
    stderr = capsys.readouterr().err
    assert "1. a:app  (a.py:2)\n  2. b:app  (b.py:2)" in stderr
    assert stderr.endswith("nothing was written\n")
    assert not (folder / "deploy.toml").exists()
    asked: list[str] = []

    def answer(question: str, said: str = "2") -> str:
        asked.append(question)
        return said

    text = new_settings(wanted(folder), ask=answer)
    assert tomllib.loads(text)["app"]["target"] == "b:app"
    assert len(asked) == 1
    for said in ("", "0", "3", "-1", "a:app", "²"):
        with pytest.raises(InitError, match="from 1 to 2"):
            new_settings(wanted(folder), ask=lambda _, said=said: said)


def test_a_terminal_is_asked(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree({"a.py": FLASK})
    answers = ["shop.example www.shop.example", "ops@shop.example"]
    monkeypatch.setattr("builtins.input", lambda _: answers.pop(0) if answers else _end())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert main(["init", str(folder), "--no-import"]) == 0
    assert tomllib.loads((folder / "deploy.toml").read_text())["site"]["hosts"] == [
        "shop.example",
        "www.shop.example",
    ]
    assert main(["init", str(folder), "--no-import", "--out", str(folder / "x.toml")]) == 2
    assert "--host must be given" in capsys.readouterr().err


def _end() -> str:
    raise EOFError


def test_check_writes_nothing_and_nothing_is_written_over(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree({"a.py": FLASK})
    words = ["init", str(folder), "--host", "a.example", "--mail", "o@a.example", "--no-import", "--yes"]
    before = sorted(folder.rglob("*"))
    assert main([*words, "--check"]) == 0
    shown = capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before
    assert main(words) == 0
    assert (folder / "deploy.toml").read_text() == shown
    (folder / "deploy.toml").write_text("mine")
    assert main(words) == 2
    assert "exists; move it" in capsys.readouterr().err
    assert (folder / "deploy.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("former", "after"),
    [
        (None, "/secrets/\n/out/\n.env\n"),
        ("", "/secrets/\n/out/\n.env\n"),
        ("*.pyc\nsecrets\n# /out/\n", "*.pyc\nsecrets\n# /out/\n/out/\n.env\n"),
        ("*.pyc", "*.pyc\n/secrets/\n/out/\n.env\n"),
        ("out/\r\n/secrets\r\n.env\r\n", "out/\r\n/secrets\r\n.env\r\n"),
        ("caf\xe9\n", "caf\xe9\n/secrets/\n/out/\n.env\n"),
    ],
)
def test_git_leaves_secrets_and_output_out(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str], former: str | None, after: str
) -> None:
    folder = tree({"a.py": FLASK})
    ignored = folder / ".gitignore"
    if former is not None:
        ignored.write_bytes(former.encode("latin-1"))
    words = ["init", str(folder), "--host", "a.example", "--mail", "o@a.example", "--no-import", "--yes"]
    assert main([*words, "--check"]) == 0
    assert main([*words, "--out", str(folder / "elsewhere.toml")]) == 0
    assert (ignored.read_bytes().decode("latin-1") if ignored.exists() else None) == former
    capsys.readouterr()
    assert main(words) == 0
    assert ignored.read_bytes().decode("latin-1") == after
    assert (f"{ignored}: " in capsys.readouterr().out) is (former != after)
    # Again, with another deploy.toml: nothing is added twice.
    (folder / "deploy.toml").unlink()
    assert main(words) == 0
    assert ignored.read_bytes().decode("latin-1") == after
    subprocess.run(["git", "init", "-q", folder], check=True)
    made = ["secrets/secret_key", "out/nginx.conf", ".env"]
    for name in made:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    told = subprocess.run(
        ["git", "-C", folder, "status", "--short", "-uall"], capture_output=True, text=True, check=True
    )
    assert not any(name in told.stdout for name in made)
    assert "deploy.toml" in told.stdout


# --- the proof ----------------------------------------------------------------------------------


def proof(folder: Path, target: str, *, limit: float = 30.0) -> Any:
    return check_import(target, folder=folder, roots=(folder,), python=sys.executable, limit=limit)


@pytest.mark.parametrize(
    ("text", "target", "kind"),
    [
        (FLASK, "m:app", "wsgi"),
        (FACTORY, "m:create_app()", "wsgi"),
        ("from fastapi import FastAPI\napp = FastAPI()\n", "m:app", "asgi"),
        ("def app(environ, start_response): return []\n", "m:app", "wsgi"),
        ("async def app(scope, receive, send): pass\n", "m:app", "asgi"),
        ("class A:\n    async def __call__(self, scope, receive, send): pass\napp = A()\n", "m:app", "asgi"),
        ('print(\'{"kind": "asgi"}\')\n' + FLASK, "m:app", "wsgi"),
    ],
)
def test_an_import_tells_the_kind(tree: Callable[..., Path], text: str, target: str, kind: str) -> None:
    made = proof(tree({"m.py": text}), target)
    assert (made.kind, made.error, made.hardened) == (kind, "", False)


@pytest.mark.parametrize(
    ("text", "target", "error"),
    [
        ("import absent_module\n", "m:app", "No module named 'absent_module'"),
        ("", "m:app", "has no attribute 'app'"),
        ("app = 3\n", "m:app", "m:app is int, which cannot be called"),
        ("import os\nos.environ['NOT_SET_HERE']\n", "m:app", "NOT_SET_HERE"),
        ("import sys\nsys.exit('no database')\n", "m:app", "no database"),
        ("import os\nos._exit(3)\n", "m:app", "ended with 3"),
        ("def app(): pass\n", "m:app()", "which cannot be called"),
    ],
)
def test_an_import_that_fails_is_told(tree: Callable[..., Path], text: str, target: str, error: str) -> None:
    made = proof(tree({"m.py": text}), target)
    assert error in made.error
    assert made.kind == ""


def test_an_import_that_hangs_is_ended_with_all_that_it_started(tree: Callable[..., Path]) -> None:
    folder = tree(
        {
            "m.py": "import subprocess, sys, time\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "time.sleep(600)\n"
        }
    )
    assert proof(folder, "m:app", limit=1.0).error == "the import took longer than 1 s"


def test_an_import_reaches_no_network(tree: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        folder = tree({"m.py": f"import socket\nsocket.create_connection(('127.0.0.1', {port}))\n{FLASK}"})
        assert "the import opens a network connection" in proof(folder, "m:app").error
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_interpreter_that_is_none_is_told(tree: Callable[..., Path]) -> None:
    folder = tree({"m.py": FLASK})
    assert check_import("m:app", folder=folder, roots=(folder,), python="/absent/python").error
    with pytest.raises(InitError, match="name another interpreter with --python"):
        new_settings(wanted(folder, proven=True, python="/absent/python"), ask=None)


def test_what_an_import_contradicts_is_told(tree: Callable[..., Path]) -> None:
    folder = tree({"Procfile": "web: uvicorn m:app\n", "m.py": FLASK})
    with pytest.raises(InitError, match="looks like asgi and is wsgi"):
        new_settings(wanted(folder, proven=True, python=sys.executable), ask=None)

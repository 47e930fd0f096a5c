"""Profile of one reader in this process: the time of a single search, and the components of a page's time."""

from __future__ import annotations

import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from bench.site import HOST, PASSWORD

# The first part of a path that fits says whose the time is.
PARTS = (
    ("templates", ("jinja2", "markupsafe", "/templates/")),
    ("Markdown", ("markdown_it", "mdurl", "domain/markdown", "domain/snippets")),
    ("database", ("sqlalchemy", "psycopg", "mks_hardening/db")),
    ("session", ("mks_hardening/wsgi/session",)),
    ("record", ("mks_hardening/wsgi/request_log", "mks_hardening/logging", "/logging/")),
    ("cache", ("mks_hardening/cache", "msgspec", "orjson")),
    ("Redis", ("/redis/", "mks_hardening/_core/backend", "mks_hardening/_core/resilience")),
    ("rest of the edge", ("mks_hardening",)),
    ("Flask", ("/flask/", "/werkzeug/", "itsdangerous")),
    ("application", ("knowledge_system",)),
)


def search_alone(variables: dict[str, str]) -> dict[str, float]:
    """Return the median milliseconds of one search by one reader without cache, by word."""
    with _asked(variables, "cache,") as ask:
        found = {}
        for word in ("コンクリート", "養生", "品質"):
            path = f"/articles?q={quote(word)}"
            ask(path)
            times = []
            for _ in range(15):
                begin = time.perf_counter()
                ask(path)
                times.append(1000 * (time.perf_counter() - begin))
            found[word] = statistics.median(times)
        return found


def profile_of(variables: dict[str, str], off: str) -> dict[str, dict[str, float]]:
    """Return each component's share in the time of a page, by kind; waiting counts for the component that waits."""
    shares: dict[str, dict[str, float]] = {}
    pages = {"list": "/articles", "detail": "/articles/1", "search": f"/articles?q={quote('養生')}"}
    with _asked(variables, off) as ask:
        for kind, path in pages.items():
            for _ in range(5):
                ask(path)
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(40):
                ask(path)
            profile.disable()
            shares[kind] = _shares(profile)
    return shares


@contextmanager
def _asked(variables: dict[str, str], off: str) -> Iterator[Any]:
    """Run the application in this process for a signed-in reader."""
    from werkzeug.test import Client

    from knowledge_system.app import create_app
    from knowledge_system.settings import AppSettings
    from mks_hardening.security import DEFAULT_RATE_LIMITS, Limit

    DEFAULT_RATE_LIMITS["search"] = (Limit("minute", 100_000, 60),)  # one reader asks faster than people
    app = create_app(AppSettings.from_env({**variables, "MKS_AREAS_OFF": f"{off}logging,notify,tasks"}))
    client = Client(app)
    base = {"base_url": f"https://{HOST}", "environ_base": {"REMOTE_ADDR": "127.0.0.1"}}
    client.post("/api/auth/login", json={"username": "reader0", "password": PASSWORD}, **base)

    def ask(path: str) -> None:
        if client.get(path, **base, headers={"Accept": "text/html"}).status_code != 200:
            raise RuntimeError(f"{path} was refused")

    try:
        yield ask
    finally:
        app.extensions["knowledge"].close()


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    rows: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, name), (_, _, own, _, callers) in rows.items():
        if file == "~":  # built-ins belong to whoever calls them
            for (caller, _, caller_name), row in callers.items():
                spent[_part(caller, caller_name)] += row[2]
        else:
            spent[_part(file, name)] += own
    whole = sum(spent.values())
    return {part: seconds / whole for part, seconds in spent.items()}


def _part(file: str, _name: str) -> str:
    path = file.replace("\\", "/")
    return next((part for part, marks in PARTS if any(mark in path for mark in marks)), "other")

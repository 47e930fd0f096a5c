"""The reference application under readers: how long they wait, what the cache is worth, where the time goes.

    python tools/bench_app.py [--articles 10000] [--readers 50] [--seconds 30] [--rounds 3] [--write FOLDER]
    python tools/bench_app.py --outages [--articles 2000] [--readers 10] [--seconds 15] [--write FOLDER]

PostgreSQL, Redis and two gunicorns run side by side, one application with its cache and one without. Readers who
pause for one to three seconds, as people do, ask one and then the other, round by round, so that neighbours on the
machine slow both down. The load generator has a core of its own, the servers have the others (at most two).

A cache is worth what readers ask twice. So the same readers, with the same choice of articles, are measured in
the first minutes, with a cache that was empty, and again with what they would have read in the five minutes before,
which is how long an article is kept. All of it takes ten minutes where nothing else runs.

With ``--outages`` one application with all of its areas is read and written while Redis, the mail server and Slack
are away, one after another (``examples/knowledge_system/outages.py``); that takes four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import http.client
import json
import os
import platform
import pstats
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tools"), str(ROOT / "examples/knowledge_system")]

HOST = "knowledge.example"
PASSWORD = "load-2026-load"  # noqa: S105 - of accounts that live as long as this run
WORDS = (
    "養生",
    "コンクリート",
    "足場",
    "鉄筋",
    "安全",
    "品質",
    "型枠",
    "検査",
    "土工",
    "測量",
    "工程",
    "試験",
)
_WRITERS = 6
"""Beside the readers; twenty times a minute is as often as one may write."""
KINDS = ("list", "detail", "search")
ALL = "all pages"
"""Of all kinds, as often as readers want each."""
P95 = {"list": 60, "detail": 60, "search": 80}
"""Milliseconds."""
WITH, WITHOUT = "with cache", "without"
KEPT_SECONDS = 300
"""How long the application keeps an article (``ttl`` of its catalogue)."""
PAUSE_SECONDS = 2
"""Between two pages of a reader, on average."""
# The first part of a path that fits says whose the time is.
PARTS = (
    ("templates", ("jinja2", "markupsafe", "/templates/")),
    ("Markdown", ("markdown_it", "mdurl", "domain/markdown", "domain/snippets")),
    ("database", ("sqlalchemy", "psycopg", "mks_hardening/db")),
    ("session", ("mks_hardening/wsgi/session",)),
    ("record", ("mks_hardening/wsgi/request_record", "mks_hardening/logging", "/logging/")),
    ("cache", ("mks_hardening/cache", "msgspec", "orjson")),
    ("Redis", ("/redis/", "mks_hardening/_core/backend", "mks_hardening/_core/resilience")),
    ("rest of the edge", ("mks_hardening",)),
    ("Flask", ("/flask/", "/werkzeug/", "itsdangerous")),
    ("application", ("knowledge_system",)),
)


@dataclass
class Seen:
    """What readers of one application saw.

    Attributes:
        milliseconds: of each answer, by kind of page.
        hits: whether each of these came from the cache, by kind, where the application says so.
        faults: what was no good answer.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)

    def share(self, kind: str, percent: float) -> float:
        """Milliseconds within which so many percent of the answers came; of every kind for ``ALL``."""
        kinds = KINDS if kind == ALL else (kind,)
        return _share([time for each in kinds for time in self.milliseconds[each]], percent)

    def rate(self, *kinds: str) -> float:
        """Percent of the answers that came from the cache."""
        hits = [hit for kind in kinds for hit in self.hits[kind]]
        return 100 * sum(hits) / max(1, len(hits))

    def median(self, kind: str, *, hit: bool) -> float:
        """Milliseconds of those that came from the cache, or of those that did not."""
        pairs = zip(self.milliseconds[kind], self.hits[kind], strict=True)
        return _share([time for time, found in pairs if found is hit], 50)

    def add(self, other: Seen) -> None:
        """What was seen in another round."""
        for kind, times in other.milliseconds.items():
            self.milliseconds[kind] += times
        for kind, hits in other.hits.items():
            self.hits[kind] += hits
        self.faults += other.faults


def _share(times: Sequence[float], percent: float) -> float:
    ordered = sorted(times) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main() -> int:
    """Measure, tell, and write; 1 where an answer was no good one."""
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    servers, load = (cores[:-1][:2], cores[-1:]) if len(cores) > 1 else (cores, cores)
    os.sched_setaffinity(0, servers)  # what is started from here on inherits it
    if options.outages:
        return _measure_outages(options, servers, load)
    with ExitStack() as stack:
        variables, _ = _servers(stack)
        _say(f"filling {options.articles} articles ...")
        names = _fill(variables, options, ["viewer"] * options.readers)
        ports = {
            WITH: stack.enter_context(_application(variables)),
            WITHOUT: stack.enter_context(_application({**variables, "MKS_AREAS_OFF": "cache,notify,tasks"})),
        }
        cookies = {which: [_sign_in(port, name) for name in names] for which, port in ports.items()}
        os.sched_setaffinity(0, load)
        seen = _rounds(ports, cookies, options, first=0)
        _say("what is read in five minutes ...")
        asyncio.run(_read_before(ports[WITH], cookies[WITH], options))
        later = _rounds(ports, cookies, options, first=options.rounds + 1)
        os.sched_setaffinity(0, servers)
        alone = _search_alone(variables)
        profile = {which: _profile(variables, off) for which, off in ((WITH, ""), (WITHOUT, "cache,"))}
    text = _report(options, (seen, later), alone, profile, cores=(servers, load))
    print(text)
    if any(each.faults for phase in (seen, later) for each in phase.values()):
        return 1  # figures of refusals are none
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "README.md").write_text(text, encoding="utf-8")
        (options.write / "waiting.svg").write_text(_waiting_plot(seen, later), encoding="utf-8")
        (options.write / "profile.svg").write_text(_profile_plot(profile), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--outages", action="store_true", help="measure while one server after another is away"
    )
    parser.add_argument("--articles", type=int, help="10000; 2000 with --outages")
    parser.add_argument("--readers", type=int, help="50; 10 with --outages")
    parser.add_argument("--seconds", type=float, help="30 for each round and application; 15 for each outage")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for the report and its plots")
    options = parser.parse_args()
    usual = {"articles": (10_000, 2000), "readers": (50, 10), "seconds": (30, 15)}
    for name, values in usual.items():
        setattr(options, name, getattr(options, name) or values[options.outages])
    return options


def _servers(stack: ExitStack) -> tuple[dict[str, str], Any]:
    """The variables of an application on servers of its own, and the Redis among them."""
    from mks_hardening.security import SecretBox
    from testbed.postgres_server import PostgresServer
    from testbed.redis_server import RedisServer

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    database, redis = (
        PostgresServer(max_connections="120", shared_buffers="128MB"),
        RedisServer(folder / "r", options={"appendonly": "yes"}),
    )
    for server in (database, redis):
        server.start()
        stack.callback(server.stop)
    variables = {
        "DATABASE_URL": database.url("postgres"),
        "MKS_REDIS_URL": redis.url,
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": HOST,
        "MKS_TRUSTED_PROXIES": "127.0.0.0/8",
        "MKS_SECRET_KEYS": SecretBox.generate_key(),
        "MKS_AREAS_OFF": "notify,tasks",
        "MKS_GUNICORN_WORKERS": "2",
        "MKS_GUNICORN_THREADS": "8",
        "MKS_DATA_DIR": str(folder),
        "MKS_LOG_FILE": str(folder / "app.log"),
    }
    return variables, redis


def _fill(variables: dict[str, str], options: argparse.Namespace, roles: Sequence[str]) -> list[str]:
    """Articles, and people with these roles who can sign in."""
    from werkzeug.security import generate_password_hash

    from knowledge_system import app, database
    from knowledge_system.models import User
    from knowledge_system.settings import AppSettings

    people = {f"reader{n}": role for n, role in enumerate(roles)}
    settings = AppSettings.from_env(variables)
    with app.open_database(settings) as (engine, search):
        database.upgrade(engine, settings, clock=time)
        sessions = app.session_factory(engine)
        database.fill(sessions, search, password="unused-unused-1", clock=time, number=options.articles)  # noqa: S106
        # A hash that is quick to check: the readers sign in before anything is measured.
        cheap = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1")
        now = datetime.now(UTC)
        with sessions.begin() as session:
            session.add_all(
                User(username=name, display_name=name, role=role, password_hash=cheap, created_at=now)
                for name, role in people.items()
            )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    return list(people)


@contextmanager
def _application(variables: dict[str, str], made_by: str = "knowledge_system.app") -> Iterator[int]:
    from testbed.polling import accepts_connections, free_port, wait_until

    port = free_port()
    command = [str(Path(sys.executable).with_name("gunicorn")), f"{made_by}:from_env()"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--threads", "8", "--keep-alive", "30"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: accepts_connections(port), timeout=60, what="gunicorn")
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _sign_in(port: int, name: str) -> str:
    """The cookie of somebody who is signed in; a busy machine may ask to come again."""
    # Each from an address of its own, as people are.
    fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": f"198.51.100.{int(name[6:]) % 250 + 1}"}
    fields |= {"Host": HOST, "Content-Type": "application/json"}
    body = json.dumps({"username": name, "password": PASSWORD})
    for _ in range(60):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/api/auth/login", body, fields)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status == 200:
            cookies = [value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie") or ()]
            return "; ".join(cookie for cookie in cookies if "session" in cookie)
        if answer.status != 503:
            raise RuntimeError(f"signing in was answered with {answer.status}")
        time.sleep(0.5)
    raise RuntimeError("the application stayed unavailable")


# --- readers ---------------------------------------------------------------------------------------


def _rounds(
    ports: dict[str, int], cookies: dict[str, list[str]], options: argparse.Namespace, *, first: int
) -> dict[str, Seen]:
    """Readers of one application and of the other, in turn; the very first round fills pools and is not counted."""
    seen = {which: Seen() for which in ports}
    for number in range(first, first + options.rounds + (not first)):
        for which, port in ports.items():
            _say(f"round {number or 'to warm up'}, {which} ...")
            length = options.seconds if number else options.seconds / 3
            one = asyncio.run(_read(port, cookies[which], options.articles, length, seed=number))
            if number:
                seen[which].add(one)
    return seen


async def _read_before(port: int, cookies: Sequence[str], options: argparse.Namespace) -> None:
    """Ask for the articles that these readers would have asked for while an article is kept."""
    chance, pages = random.Random("before"), int(options.readers * KEPT_SECONDS / PAUSE_SECONDS)  # noqa: S311 - a reader's choice
    wanted = (_wanted(options.articles, chance) for _ in range(pages))
    # In this order, each once: the second time it would come from the cache.
    paths = list(dict.fromkeys(path for kind, path in wanted if kind == "detail"))
    share = 4
    await asyncio.gather(*(_asking(port, cookies[n], paths[n::share]) for n in range(share)))


async def _asking(port: int, cookie: str, paths: Sequence[str]) -> None:
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    for path in paths:
        outgoing.write(_question(path, cookie))
        if (await _answer(incoming))[0] != 200:
            raise RuntimeError(f"{path} was refused")
    outgoing.close()


def _question(path: str, cookie: str) -> bytes:
    fields = (
        f"Host: {HOST}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.7\r\nCookie: {cookie}\r\n"
    )
    return f"GET {path} HTTP/1.1\r\n{fields}Accept: text/html\r\n\r\n".encode()


async def _read(port: int, cookies: Sequence[str], articles: int, seconds: float, *, seed: int) -> Seen:
    seen = Seen()
    end = time.monotonic() + seconds
    readers = (
        _reader(port, cookie, seen, end, articles, random.Random(f"{seed} {number}"))  # noqa: S311 - a reader's choice
        for number, cookie in enumerate(cookies)
    )
    await asyncio.gather(*readers)
    return seen


async def _reader(  # noqa: PLR0917 - called from one place, above
    port: int, cookie: str, seen: Seen, end: float, articles: int, chance: random.Random
) -> None:
    await asyncio.sleep(chance.uniform(0, 3))
    # As nginx does, with a request in hand: a new connection that says nothing keeps a thread of gunicorn waiting.
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        kind, path = _wanted(articles, chance)
        asked = time.perf_counter()
        outgoing.write(_question(path, cookie))
        status, hit = await _answer(incoming)
        seen.milliseconds[kind].append(1000 * (time.perf_counter() - asked))
        if status != 200:
            seen.faults.append(f"{status} {kind}")
        if hit is not None:
            seen.hits[kind].append(hit)
        await asyncio.sleep(chance.uniform(PAUSE_SECONDS - 1, PAUSE_SECONDS + 1))
    outgoing.close()


def _wanted(articles: int, chance: random.Random) -> tuple[str, str]:
    """List 3, detail 2, search 1; few articles are read by many (Zipf), and most lists are the first page."""
    kind = chance.choices(KINDS, (3, 2, 1))[0]
    if kind == "list":
        return kind, chance.choice(("/articles", "/articles", f"/articles?category={quote('コンクリート')}"))
    if kind == "detail":
        return kind, f"/articles/{max(1, min(articles, int(articles ** chance.random())))}"
    return kind, f"/articles?q={quote(chance.choice(WORDS))}"


async def _answer(incoming: asyncio.StreamReader) -> tuple[int, bool | None]:
    head = (await incoming.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    await incoming.readexactly(int(fields["content-length"]))
    cache = fields.get("x-cache")
    return int(head.split(" ", 2)[1]), None if cache is None else cache == "hit"


# --- while a server is away --------------------------------------------------------------------------


def _measure_outages(options: argparse.Namespace, servers: list[int], load: list[int]) -> int:
    import outages
    import outages_kept

    everybody = ["reviewer"] * (options.readers + _WRITERS) + ["admin"]
    with ExitStack() as stack:
        variables, redis = _servers(stack)
        mail, chat = _receivers(stack)
        variables |= _told_by(mail, chat, Path(variables["MKS_DATA_DIR"]))
        _say(f"filling {options.articles} articles ...")
        names = _fill(variables, options, everybody)
        with _application(variables, "knowledge_system.demo.application") as port:
            os.sched_setaffinity(0, load)
            fields = (
                f"Host: {HOST}\r\nOrigin: https://{HOST}\r\nX-Forwarded-Proto: https\r\nAccept: text/html\r\n"
            )
            cookies = [_sign_in(port, name) for name in names]
            site = outages.Site(port, fields, cookies, redis, *mail, *chat, options.articles)
            crowd = asyncio.run(
                outages.run(
                    site, seconds=options.seconds, readers=options.readers, writers=_WRITERS, say=_say
                )
            )
            _say("waiting for what is on its way ...")
            outages_kept.settle(site, crowd)
        kept = outages_kept.account(
            site, variables["DATABASE_URL"], Path(variables["MKS_ALERT_SPOOL"]), crowd
        )
    text = outages_kept.report(_outage_setting(options, servers, load), crowd.phases, kept)
    print(text)
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "outages.md").write_text(text, encoding="utf-8")
        (options.write / "outages.svg").write_text(_outages_plot(crowd.phases), encoding="utf-8")
    return 0


def _receivers(stack: ExitStack) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """A mail server and what stands for Slack, each behind a wire that can be cut."""
    from testbed.fault_proxy import FaultProxy
    from testbed.http_sink import HttpSink
    from testbed.smtp_server import SmtpServer

    made = []
    for server in (SmtpServer(), HttpSink()):
        server.start()
        stack.callback(server.stop)
        wire = FaultProxy("127.0.0.1", server.port)
        wire.start()
        stack.callback(wire.close)
        made.append((wire, server))
    return made[0], made[1]


def _told_by(mail: tuple[Any, Any], chat: tuple[Any, Any], folder: Path) -> dict[str, str]:
    """The settings of an application with all of its areas, and with pages that fail on purpose."""
    return {
        "MKS_AREAS_OFF": "",
        "MKS_DEMO": "1",
        "MKS_SMTP_HOST": "127.0.0.1",
        "MKS_SMTP_PORT": str(mail[0].port),
        "MKS_SMTP_SECURITY": "plain",
        "MKS_ALERT_FROM": f"alerts@{HOST}",
        "MKS_ALERT_TO": f"operators@{HOST}",
        "MKS_ALERT_WINDOW": "1s",
        "MKS_ALERT_SPOOL": str(folder / "spool"),
        "MKS_SLACK_WEBHOOK_URL": f"http://127.0.0.1:{chat[0].port}/services/load",
    }


def _outage_setting(options: argparse.Namespace, servers: list[int], load: list[int]) -> str:
    return (
        f"`make bench-app ARGS=--outages`, {datetime.now(UTC):%Y-%m-%d}: {options.articles} articles, "
        f"{options.readers} readers who pause 0.4 to 1.2 s and {_WRITERS} writers, {options.seconds:g} s for each "
        f"phase. Servers on {len(servers)} core(s), the load generator on {len(load)}; Python "
        f"{platform.python_version()}, load of the machine {os.getloadavg()[1]:.1f}. Compare rows, not days: how "
        "late a timer of the load generator is says what the machine itself adds to each wait."
    )


def _outages_plot(phases: Sequence[Any]) -> str:
    import outages
    import outages_kept

    parts, y = [], 30
    most = max(outages.MOST, *(outages_kept.worst([seen]) for seen in phases))
    for phase, seen in zip(outages.PHASES, phases, strict=True):
        parts.append(_text(8, y + 30, phase.name))
        for number, page in enumerate(outages.PAGES):
            value = outages.share(seen.milliseconds[page], 99) if seen.milliseconds[page] else 0.0
            width = 380 * value / most
            parts.append(_bar(130, y + 9 * number, width, COLOURS[number], height=8))
            parts.append(_text(136 + width, y + 8 + 9 * number, f"{page} {value:.0f} ms", size=9))
        y += 64
    x = 130 + 380 * outages.MOST / most
    parts.append(f'<path d="M{x:.1f} 24V{y}" stroke="#c8553d" stroke-dasharray="4 3"/>')
    return _svg(660, y, "p99 of each page while a server is away", parts)


# --- one reader, and where the time goes --------------------------------------------------------------


def _search_alone(variables: dict[str, str]) -> dict[str, float]:
    """Median milliseconds of one search by one reader, page and nothing from the cache, by word."""
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


def _profile(variables: dict[str, str], off: str) -> dict[str, dict[str, float]]:
    """The share of each part in the time of a page, by kind; waits for servers are in the part that waits."""
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
    """The application in this process, asked by a reader who is signed in."""
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


# --- what is told --------------------------------------------------------------------------------------


def _report(
    options: argparse.Namespace,
    phases: tuple[dict[str, Seen], dict[str, Seen]],
    alone: dict[str, float],
    profile: dict[str, dict[str, dict[str, float]]],
    *,
    cores: tuple[list[int], list[int]],
) -> str:
    seen, later = phases
    setting = (
        f"`make bench-app`, {datetime.now(UTC):%Y-%m-%d}: {options.articles} articles on PostgreSQL and Redis, "
        f"{options.readers} readers who pause 1 to 3 s, {options.rounds} rounds of {options.seconds:g} s for each "
        f"application in turn. Servers on {len(cores[0])} core(s), the load generator on {len(cores[1])}; Python "
        f"{platform.python_version()}, load of the machine {os.getloadavg()[1]:.1f}. Compare columns, not days: "
        "other work on the machine slows both applications down."
    )
    busy = os.getloadavg()[1] / max(1, os.cpu_count() or 1)
    if busy > 1.5:
        setting += (
            f"\n\n**The machine had {busy:.0f} times as much to do as it has cores for: the ratios are figures, "
            "milliseconds and shares of waiting are not. Run it again where nothing else runs.**"
        )
    lines = [
        "# Measured",
        "",
        setting,
        "",
        "| milliseconds | p50 / p95 / p99 with the cache | without | p50 with ÷ without |",
        "|---|---|---|---|",
    ]
    rows = [*((kind, kind, seen) for kind in (*KINDS, ALL)), ("detail, after five minutes", "detail", later)]
    for label, kind, phase in rows:
        cells = [
            " / ".join(f"{each.share(kind, percent):.0f}" for percent in (50, 95, 99))
            for each in (phase[WITH], phase[WITHOUT])
        ]
        lines.append(f"| {label} | {cells[0]} | {cells[1]} | {_worth(phase, kind):.2f} |")
    every = [each for phase in phases for each in phase.values()]
    answers = sum(len(times) for each in every for times in each.milliseconds.values())
    faults = [fault for each in every for fault in each.faults]
    told = ", ".join(f"{word} {milliseconds:.1f} ms" for word, milliseconds in alone.items())
    lines += [*_promises(seen, later, alone)]
    lines += [
        "",
        f"- {answers} answers, {len(faults)} faults{': ' + ', '.join(sorted(set(faults))) if faults else ''}.",
        f"- Lists and searches from the cache: {seen[WITH].rate('list', 'search'):.0f} %.",
        *(
            f"- Articles from the cache, {when}: {phase[WITH].rate('detail'):.0f} %; median "
            f"{phase[WITH].median('detail', hit=True):.0f} ms of these, "
            f"{phase[WITH].median('detail', hit=False):.0f} ms of the others."
            for when, phase in (("in the first minutes", seen), ("after five minutes", later))
        ),
        f"- Search by one reader, the whole page, nothing from the cache (median of 15): {told}.",
        "",
        "![How long readers wait](waiting.svg)",
        "",
        "Where the time of a page goes, by a profile of one process (a wait belongs to the part that waits):",
        "",
        "![Where the time goes](profile.svg)",
        "",
        "| share of the time | "
        + " | ".join(f"{kind}, {which}" for which in profile for kind in KINDS)
        + " |",
        "|---|" + "---|" * (len(profile) * len(KINDS)),
    ]
    for part in (*(part for part, _ in PARTS), "other"):
        cells = [f"{100 * profile[which][kind].get(part, 0):.0f} %" for which in profile for kind in KINDS]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _worth(phase: dict[str, Seen], kind: str) -> float:
    """Median with the cache ÷ without."""
    return phase[WITH].share(kind, 50) / phase[WITHOUT].share(kind, 50)


def _promises(seen: dict[str, Seen], later: dict[str, Seen], alone: dict[str, float]) -> list[str]:
    """What was promised beside what was measured."""
    fast = seen[WITH]
    rows = [
        *((f"p95 of {kind}, with the cache", fast.share(kind, 95), most, "ms") for kind, most in P95.items()),
        ("search of a frequent word by one reader", max(alone.values()), 15, "ms"),
        ("pages that are not from the cache", 100 - fast.rate(*KINDS), 30, "%"),
        ("median of all pages with ÷ without the cache", _worth(seen, ALL), 0.5, ""),
        *(
            (f"the same of articles alone, {when}", _worth(phase, "detail"), 0.5, "")
            for when, phase in (("first minutes", seen), ("after five minutes", later))
        ),
    ]
    told = [
        f"| {what} | {most:g} {unit} | {found:.3g} {unit} | {'yes' if found <= most else '**no**'} |"
        for what, found, most, unit in rows
    ]
    return ["", "| promised | at most | measured | kept |", "|---|---|---|---|", *told]


COLOURS = (
    "#c9ada7",
    "#1f5f8b",
    "#c8553d",
    "#588157",
    "#8a6f3e",
    "#6d597a",
    "#b5838d",
    "#457b9d",
    "#7f8c8d",
    "#2a9d8f",
    "#bbbbbb",
)


def _waiting_plot(seen: dict[str, Seen], later: dict[str, Seen]) -> str:
    bars = [
        (f"{kind} {which}", [(f"p{percent}", each.share(kind, percent)) for percent in (50, 95)])
        for kind in KINDS
        for which, each in seen.items()
    ]
    bars += [
        (f"detail later {which}", [(f"p{percent}", each.share("detail", percent)) for percent in (50, 95)])
        for which, each in later.items()
    ]
    most = max(value for _, values in bars for _, value in values)
    parts, y = [], 30
    for label, values in bars:
        parts.append(_text(8, y + 20, label))
        for number, (name, value) in enumerate(values):
            width = 380 * value / most
            parts.append(_bar(170, y + 18 * number, width, COLOURS[number]))
            parts.append(_text(176 + width, y + 12 + 18 * number, f"{name} {value:.0f} ms"))
        y += 48
    return _svg(660, y, "How long readers wait", parts)


def _profile_plot(profile: dict[str, dict[str, dict[str, float]]]) -> str:
    names = [*(part for part, _ in PARTS), "other"]
    parts, y = [], 30
    for which, kinds in profile.items():
        for kind, shares in kinds.items():
            parts.append(_text(8, y + 13, f"{kind} {which}"))
            x = 170.0
            for number, name in enumerate(names):
                width = 460 * shares.get(name, 0)
                parts.append(_bar(x, y, width, COLOURS[number]))
                x += width
            y += 26
    for number, name in enumerate(names):
        x, row = 8 + 160 * (number % 4), y + 14 + 22 * (number // 4)
        parts += [_bar(x, row, 14, COLOURS[number]), _text(x + 20, row + 12, name)]
    return _svg(660, y + 90, "Where the time of a page goes", parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" role="img" aria-label="{title}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    style = '<g font-family="sans-serif" font-size="12" fill="#222">'
    ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join((head, ground, style, _text(8, 16, title), *parts, "</g>", "</svg>")) + "\n"


def _bar(x: float, y: float, width: float, colour: str, *, height: int = 16) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, *, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{words}</text>'


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The response times of a Flask page while Redis hangs for ten seconds, with this package and with the usual three.

    python benchmarks/outage.py            # measures, prints a table and writes docs/explanation/outage.json
    python benchmarks/outage.py --draw     # draws docs/*/pictures/outage.svg from the last measurement

Both applications do the same: a session, a rate limit and a cached value in Redis. The peers (Flask-Session,
Flask-Limiter with its in-memory fallback, Flask-Caching) get a socket timeout of 250 ms and no retries. This is
better than their defaults: without a timeout every request would wait until Redis is back. Four users send five
requests per second each; a response is recorded with its start, its duration and its status.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
DATA = ROOT / "docs" / "explanation" / "outage.json"

USERS, INTERVAL = 4, 0.2
STOPPED_AT, CONTINUED_AT, ENDS_AT = 4.0, 14.0, 20.0
TIMEOUT = 0.25
OURS, PEERS = "mks_hardening", "Flask-Session, Flask-Limiter and Flask-Caching"

Application = Any


class Response(NamedTuple):
    """One request: seconds since the beginning of the run, seconds until the response, status code."""

    start: float
    duration: float
    status: int


# --- both applications


def hardened(redis_url: str) -> Application:
    """Return the application with this package."""
    from flask import Flask, session

    from mks_hardening.cache import RedisCache, cached
    from mks_hardening.contrib.flask_app import Hardening, limit
    from mks_hardening.settings import HardeningSettings

    app = Flask("hardened")
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development", "MKS_REDIS_URL": redis_url})
    Hardening(app, settings, sign_in_url="/sign-in", groups={"page": "1000 per minute"})

    @cached(cache=RedisCache(redis_url), ttl=60)
    def title() -> str:
        return "鉄筋の継手"

    @app.post("/sign-in")
    def sign_in() -> str:
        session["user_id"] = "alice"
        return ""

    @app.get("/")
    @limit("page")
    def page() -> str:
        return f"{session['user_id']}: {title()}"

    return app


def usual(redis_url: str) -> Application:
    """Return the application with three packages that are often used together."""
    import redis
    from flask import Flask, session
    from flask_caching import Cache
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address
    from flask_session import Session
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    app = Flask("usual")
    app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=redis.Redis.from_url(redis_url, **options),
        CACHE_TYPE="RedisCache",
        CACHE_REDIS_URL=redis_url,
        CACHE_OPTIONS=options,
    )
    Session(app)
    cache = Cache(app)
    limiter = Limiter(
        get_remote_address,
        app=app,
        storage_uri=redis_url,
        storage_options=options,
        in_memory_fallback_enabled=True,
    )

    @cache.memoize(timeout=60)
    def title() -> str:
        return "鉄筋の継手"

    @app.post("/sign-in")
    def sign_in() -> str:
        session["user_id"] = "alice"
        return ""

    @app.get("/")
    @limiter.limit("1000 per minute")
    def page() -> str:
        return f"{session['user_id']}: {title()}"

    return app


# --- the run


def measure(make: Callable[[str], Application]) -> list[Response]:
    """Run the application for twenty seconds, while Redis hangs for ten of them."""
    from testbed.redis_server import RedisServer

    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        try:
            app = make(server.url)
            found: list[Response] = []
            begin = time.monotonic()
            users = [
                threading.Thread(target=_use, args=(app, begin, index * INTERVAL / USERS, found))
                for index in range(USERS)
            ]
            for user in users:
                user.start()
            time.sleep(STOPPED_AT - (time.monotonic() - begin))
            server.pause()
            time.sleep(CONTINUED_AT - (time.monotonic() - begin))
            server.resume()
            for user in users:
                user.join()
        finally:
            server.stop()
    return sorted(found)


def _use(app: Application, begin: float, offset: float, found: list[Response]) -> None:
    client = app.test_client()
    same_site = {"Sec-Fetch-Site": "same-origin"}
    client.post("/sign-in", headers=same_site)
    turn = begin + 0.5 + offset
    while turn - begin < ENDS_AT:
        time.sleep(max(0.0, turn - time.monotonic()))
        start = time.monotonic()
        try:
            status = client.get("/").status_code
        except Exception:  # noqa: BLE001 - whatever the application raises is an error page for the user
            status = 500
        found.append(Response(start - begin, time.monotonic() - start, status))
        turn = max(turn + INTERVAL, time.monotonic())


def _while_stopped(found: list[Response]) -> list[Response]:
    return [response for response in found if STOPPED_AT <= response.start < CONTINUED_AT]


def table(runs: dict[str, list[Response]]) -> str:
    """Return the figures of the outage."""
    lines = [f"{'while Redis hangs':52} responses  errors   median  slowest"]
    for name, found in runs.items():
        during = _while_stopped(found)
        errors = sum(response.status >= 500 for response in during)
        times = sorted(response.duration for response in during)
        median, slowest = statistics.median(times) * 1000, times[-1] * 1000
        lines.append(f"{name:52} {len(during):9}  {errors:6}  {median:5.0f} ms  {slowest:4.0f} ms")
    return "\n".join(lines)


# --- the picture

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP, _TOP = 760, 64, 16, 170, 62, 34
_FROM, _TO = 0.001, 10.0  # seconds, logarithmic
# On a page of the documentation the colours of its theme are used, elsewhere those of the reader's system.
_STYLE = """<style>
.outage-plot{--ink:var(--color-foreground-primary,#1c2733);--line:var(--color-background-border,#c8d0d8);
--hang:#d9a64a;--ok:#2f80c8;--failed:#d23b3b;max-width:100%;height:auto}
@media (prefers-color-scheme:dark){.outage-plot{--ink:var(--color-foreground-primary,#d8dee6);
--line:var(--color-background-border,#3a444f)}}
.outage-plot text{font:13px system-ui,sans-serif;fill:var(--ink)}.outage-plot .name{font-weight:600;font-size:14px}
.outage-plot path{stroke:var(--line)}.outage-plot .hang{fill:var(--hang);opacity:.22}
@media (max-width:40em){.outage-plot text{font-size:20px}.outage-plot .name{font-size:18px}}
.outage-plot circle{fill:var(--ok)}.outage-plot .failed{fill:var(--failed)}
</style>"""
_TEXTS = {
    "en": {
        OURS: OURS,
        PEERS: PEERS,
        "label": "Response times of the same page with both, while Redis hangs from second 4 to second 14.",
        "counts": "{good} responses, {errors} errors",
        "hang": "Redis hangs",
    },
    "ja": {
        OURS: "mks_hardening",
        PEERS: "Flask-Session、Flask-Limiter、Flask-Caching",
        "label": "4 秒から 14 秒まで Redis が応答しない間の、同じページの応答時間",
        "counts": "成功 {good} 件、エラー {errors} 件",
        "hang": "Redis が応答しない",
    },
}


def picture_of(language: str) -> Path:
    """Return the file of the picture."""
    return ROOT / "docs" / language / "pictures" / "outage.svg"


def draw(runs: dict[str, list[Response]], language: str) -> str:
    """Return both runs as a picture: a dot for each response, a square if it is an error."""
    texts = _TEXTS[language]
    shapes = [_STYLE]
    for index, (name, found) in enumerate(runs.items()):
        shapes.extend(_panel(_TOP + index * (_PANEL + _GAP), texts[name], found, texts))
    height = _TOP + len(runs) * (_PANEL + _GAP)
    head = f'class="outage-plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(texts["label"])}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {head}>\n' + "\n".join(shapes) + "\n</svg>\n"


def _panel(top: float, name: str, found: list[Response], texts: dict[str, str]) -> Iterator[str]:
    during = _while_stopped(found)
    errors = sum(response.status >= 500 for response in during)
    counts = texts["counts"].format(good=len(during) - errors, errors=errors)
    yield f'<text class="name" x="{_LEFT}" y="{top - 12}">{escape(name)}</text>'
    left, width = _x(STOPPED_AT), _x(CONTINUED_AT) - _x(STOPPED_AT)
    yield f'<rect class="hang" x="{left}" y="{top}" width="{width:.1f}" height="{_PANEL}"/>'
    for line, text in enumerate((texts["hang"], counts)):
        yield f'<text x="{left + width / 2:.1f}" y="{top + 22 + 24 * line}" text-anchor="middle">{text}</text>'
    for label, seconds in (("1 ms", 0.001), ("10 ms", 0.01), ("100 ms", 0.1), ("1 s", 1.0), ("10 s", 10.0)):
        level = _y(top, seconds)
        yield f'<path d="M{_LEFT} {level}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{label}</text>'
    for second in range(0, int(ENDS_AT) + 1, 5):
        yield f'<text x="{_x(second)}" y="{top + _PANEL + 18}" text-anchor="middle">{second} s</text>'
    for response in found:
        across, up = _x(response.start), _y(top, response.duration)
        if response.status < 500:
            yield f'<circle cx="{across}" cy="{up}" r="2"/>'
        else:
            yield f'<rect class="failed" x="{across - 2:.1f}" y="{up - 2:.1f}" width="4" height="4"/>'


def _x(seconds: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / ENDS_AT, 1)


def _y(top: float, seconds: float) -> float:
    share = math.log(min(max(seconds, _FROM), _TO) / _FROM) / math.log(_TO / _FROM)
    return round(top + _PANEL * (1 - share), 1)


def last_runs() -> dict[str, list[Response]]:
    """Return the last measurement."""
    stored = json.loads(DATA.read_text(encoding="utf-8"))
    return {name: [Response(*found) for found in run] for name, run in stored.items()}


def main() -> None:
    """Measure, or draw."""
    if "--draw" not in sys.argv[1:]:
        logging.disable(logging.CRITICAL)
        measured = {name: measure(make) for name, make in ((OURS, hardened), (PEERS, usual))}
        rounded = {
            name: [[round(found.start, 2), round(found.duration, 4), found.status] for found in run]
            for name, run in measured.items()
        }
        DATA.write_text(json.dumps(rounded, separators=(",", ":")) + "\n", encoding="utf-8")
    runs = last_runs()
    for language in _TEXTS:
        picture_of(language).write_text(draw(runs, language), encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()

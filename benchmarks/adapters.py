"""Cost of the Flask and Django adapters per request, compared with the four Flask extensions for the same tasks.

    python benchmarks/adapters.py [rounds]

All contenders answer the same two requests in one process, with one redis-server on a free loopback port: a page
that reads the session of a signed-in user, and a POST that changes it. Both count against one limit, get security
headers, and pass the HTTPS and CSRF checks. Rounds are interleaved; the tables show medians minus the bare
framework, and ratios to the peers: function calls, which do not depend on machine and load; CPU time in
microseconds; and wall clock time, which includes the round trips to Redis. Our package also checks idle and
absolute limits, decides which proxy to trust and writes a request record (discarded here), which the peers do not
do.
"""

# ruff: noqa: ARG001 - signatures of Django

from __future__ import annotations

import cProfile
import io
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from figures import keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

HOST, LIMIT, CALLS = "www.example.com", "1000000 per hour", 100
PATHS = ("/page", "/change")
PEERS = "Flask-Session, -Limiter, -Talisman, -SeaSurf"
Browser = dict[str, str]
Turn = tuple[float, float, float]


def request(
    app: Callable[..., Any], path: str, cookies: Browser, *, form: bool = False, **headers: str
) -> str:
    """Return one HTTPS request as a proxy on this machine forwards it; cookies are kept."""
    environ = {
        "REQUEST_METHOD": "POST" if form else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": "0",
        "HTTP_HOST": HOST,
        "HTTP_X_FORWARDED_FOR": "203.0.113.9",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_ORIGIN": f"https://{HOST}",
        "HTTP_REFERER": f"https://{HOST}/page",
        "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **headers,
    }
    heads: list[Any] = []
    body = app(environ, lambda status, fields, *_: heads.append((status, fields)))
    text = b"".join(body).decode()
    if hasattr(body, "close"):
        body.close()
    status, fields = heads[-1]
    if not status.startswith("200"):
        raise RuntimeError(f"{path}: {status} {text[:300]}")
    for name, value in fields:
        if name.lower() == "set-cookie":
            key, _, rest = value.strip().partition("=")
            cookies[key] = rest.partition(";")[0]
    return text


# --- Flask


def flask_views(app: Any, limited: Callable[[Any], Any]) -> None:
    from flask import session

    @app.get("/sign-in")
    def sign_in() -> str:
        session["user_id"] = 7
        return ""

    @app.get("/page")
    @limited
    def page() -> str:
        return f"<p>{session.get('user_id')}</p>"

    @app.post("/change")
    @limited
    def change() -> str:
        session["count"] = session.get("count", 0) + 1
        return f"<p>{session['count']}</p>"


def flask_bare(url: str) -> Any:
    from flask import Flask

    app = Flask("bare")
    app.add_url_rule("/sign-in", view_func=lambda: "", endpoint="sign_in")
    app.add_url_rule("/page", view_func=lambda: "<p>7</p>", endpoint="page")
    app.add_url_rule("/change", view_func=lambda: "<p>1</p>", endpoint="change", methods=["POST"])
    return app


def flask_ours(url: str, **options: Any) -> Any:
    from flask import Flask

    from mks_hardening.contrib.flask_app import Hardening, limit

    app = Flask("ours")
    Hardening(app, hardening(url), groups={"page": LIMIT}, **options)
    flask_views(app, limit("page"))
    return app


def flask_peers(url: str) -> Any:
    import redis
    from flask import Flask
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address
    from flask_seasurf import SeaSurf
    from flask_session import Session
    from flask_talisman import Talisman
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = Flask("peers")
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    app.config.update(SECRET_KEY="x" * 40, SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(url))
    app.config.update(SESSION_COOKIE_SECURE=True, CSRF_COOKIE_SECURE=True)
    Session(app)
    Talisman(app, content_security_policy={"default-src": "'self'", "object-src": "'none'"})
    SeaSurf(app)
    limiter = Limiter(
        get_remote_address, app=app, storage_uri=url, strategy="moving-window", headers_enabled=True
    )
    flask_views(app, limiter.limit(LIMIT))
    return app


# --- Django


def django_urls(limited: Callable[[Any], Any], *, session: bool) -> type:
    from django.http import HttpResponse
    from django.urls import path

    def sign_in(request: Any) -> Any:
        if session:
            request.session["_auth_user_id"] = "7"
        return HttpResponse("")

    def page(request: Any) -> Any:
        return HttpResponse(f"<p>{request.session.get('_auth_user_id') if session else 7}</p>")

    def change(request: Any) -> Any:
        if session:
            request.session["count"] = request.session.get("count", 0) + 1
        return HttpResponse("<p>1</p>")

    routes = [path("sign-in", sign_in), path("page", limited(page)), path("change", limited(change))]
    return type("Urls", (), {"urlpatterns": routes})


def in_project(app: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """Run the application with its own settings; changing the settings is not measured."""
    app.settings = settings  # type: ignore[attr-defined]
    return app


def django_bare(url: str) -> Any:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.utils import override_settings

    settings = {
        "MIDDLEWARE": [],
        "ALLOWED_HOSTS": [HOST],
        "ROOT_URLCONF": django_urls(lambda v: v, session=False),
    }
    with override_settings(**settings):
        return in_project(WSGIHandler(), **settings)


def django_ours(url: str) -> Any:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.utils import override_settings

    from mks_hardening.contrib.django_app import hardened, limit

    settings = {
        "MIDDLEWARE": ["mks_hardening.contrib.django_app.HardeningMiddleware"],
        "SESSION_ENGINE": "mks_hardening.contrib.django_app.sessions",
        "ALLOWED_HOSTS": [HOST],
        "MKS_HARDENING": {"settings": hardening(url), "groups": {"page": LIMIT}},
        "ROOT_URLCONF": django_urls(limit("page"), session=True),
    }
    with override_settings(**settings):
        stack = hardened(WSGIHandler())
    return in_project(partial(stack), **settings)  # wrappers have slots


# --- measuring


def hardening(url: str) -> Any:
    from mks_hardening.settings import HardeningSettings

    variables = {"MKS_ALLOWED_HOSTS": HOST, "MKS_TRUSTED_PROXIES": "127.0.0.1", "MKS_REDIS_URL": url}
    variables["MKS_STORE_BUDGET"] = "10s"  # a busy machine is no outage
    return HardeningSettings.from_env(environ=variables)


@contextmanager
def redis_server() -> Iterator[str]:
    from testbed.polling import accepts_connections, free_port, wait_until

    program = shutil.which("redis-server")
    if program is None:
        sys.exit("no redis-server here")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--save", "", "--dir", folder]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: accepts_connections(port))
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def turn(app: Any, path: str, cookies: Browser) -> Turn:
    """Measure one request: function calls, CPU time and wall clock time in microseconds."""
    from django.test.utils import override_settings

    def run() -> Turn:
        form = path == "/change"
        token = cookies.get("_csrf_token", "")
        own, clock = time.process_time(), time.perf_counter()
        for _ in range(CALLS):
            request(app, path, cookies, form=form, HTTP_X_CSRFTOKEN=token)
        own, clock = time.process_time() - own, time.perf_counter() - clock
        with cProfile.Profile() as profile:
            request(app, path, cookies, form=form, HTTP_X_CSRFTOKEN=token)
        calls = sum(entry.callcount for entry in profile.getstats())
        return calls, own / CALLS * 1e6, clock / CALLS * 1e6

    settings = getattr(app, "settings", None)
    if settings is None:
        return run()
    with override_settings(**settings):
        request(app, path, cookies, form=path == "/change")  # the settings changed: parts are made anew
        return run()


def main(rounds: int) -> None:
    import django_project

    django_project.configure()
    warnings.simplefilter("ignore")
    logger = logging.getLogger("mks_hardening.request")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO)
    makers = {
        "Flask alone": flask_bare,
        "Flask, ours": flask_ours,
        "Flask, ours without a request record": partial(flask_ours, skip_paths=PATHS),
        PEERS: flask_peers,
        "Django alone": django_bare,
        "Django, ours": django_ours,
    }
    with redis_server() as url:
        apps = {name: make(url) for name, make in makers.items()}
        jars: dict[str, Browser] = {name: {} for name in apps}
        times: dict[tuple[str, str], list[Turn]] = {}
        for _ in range(rounds):
            for name, app in apps.items():
                if not jars[name]:
                    turn(app, "/sign-in", jars[name])
                for path in PATHS:
                    times.setdefault((path, name), []).append(turn(app, path, jars[name]))
    for path, title in (("/page", "a page that reads the session"), ("/change", "a POST that changes it")):
        print(f"\n{title}: over the bare framework, and of the peers (goal: at most 0.5)")
        keep(title, {name: over(times, path, name, 1) for name in apps})
        for name in apps:
            cells = "".join(cell(times, path, name, which) for which in range(3))
            print(f"  {name:46}{cells}")


def over(times: dict[tuple[str, str], list[Turn]], path: str, name: str, which: int) -> float:
    """Return what an application takes above its bare framework."""

    def middle(name: str) -> float:
        return statistics.median(turn[which] for turn in times[path, name])

    return middle(name) - middle("Django alone" if name.startswith("Django") else "Flask alone")


def cell(times: dict[tuple[str, str], list[Turn]], path: str, name: str, which: int) -> str:
    ours, peers = over(times, path, name, which), over(times, path, PEERS, which)
    unit = ("calls", "µs of the processor", "µs by the clock")[which]
    return f" {ours:6.0f} {unit} {ours / peers:5.2f}  "


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)

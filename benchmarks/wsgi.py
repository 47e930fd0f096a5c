"""Cost of trusted proxies, redirect and headers, compared with hand-written minimal versions and with peers.

    python benchmarks/wsgi.py [rounds]

All contenders of a group run in turn, round after round; the figure is the median time of one request minus that of
the bare application. Peers come from the environment that the script runs in: install werkzeug, waitress, django,
flask, flask-talisman and secure to see all of them. The minimal versions ("floors") do only what is unavoidable:
they check nothing, and are no alternative.
"""

from __future__ import annotations

import gc
import io
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from figures import keep

from mks_hardening.wsgi import (
    CacheRule,
    CSRFMiddleware,
    HeaderPolicy,
    HTTPSRedirectMiddleware,
    ProxyTrust,
    ResponseCacheMiddleware,
    SecurityHeadersMiddleware,
    TrustedProxyMiddleware,
)

App = Callable[..., Any]

CALLS = 500
HOST = "www.example.com"
ANSWER = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "5")]
BODY = [b"hello"]


def bare(_environ, start_response):
    start_response("200 OK", ANSWER)
    return BODY


def request(**changes: Any) -> dict[str, Any]:
    """Return the environ that gunicorn passes on behind a proxy, with the headers of a browser."""
    environ = {
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "page=2",
        "RAW_URI": "/articles/17?page=2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": HOST,
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "ja,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
        "HTTP_COOKIE": "a=1; b=2",
        "REMOTE_ADDR": "10.0.0.1",
        "REMOTE_PORT": "40312",
        "SERVER_NAME": "0.0.0.0",
        "SERVER_PORT": "8000",
        "PATH_INFO": "/articles/17",
        "SCRIPT_NAME": "",
    }
    return {**environ, **changes}


BEHIND_PROXY = request(HTTP_X_FORWARDED_FOR="203.0.113.9", HTTP_X_FORWARDED_PROTO="https")
PLAIN = request(REMOTE_ADDR="203.0.113.9")
SECURE = request(**{"wsgi.url_scheme": "https"})
NOBODY = {key: value for key, value in request().items() if key != "HTTP_COOKIE"}


# --- floors -------------------------------------------------------------------------------------------------


def floor_trust(app: App, peer: str = "10.0.0.1") -> App:
    """Two dictionary look-ups (peer, host) and the scheme."""
    peers, hosts = {peer: True}, {HOST: True}

    def floor(environ, start_response):
        if environ["REMOTE_ADDR"] in peers and environ.get("HTTP_X_FORWARDED_PROTO") == "https":
            environ["wsgi.url_scheme"] = "https"
        if environ["HTTP_HOST"] in hosts and environ["wsgi.url_scheme"] == "https":
            return app(environ, start_response)
        raise AssertionError

    return floor


def floor_redirect(_app: App) -> App:
    """A look-up of the host, quoting of path and query, one list of header fields."""
    from urllib.parse import quote

    hosts = {HOST: "https://www.example.com"}

    def floor(environ, start_response):
        base = hosts[environ["HTTP_HOST"]]
        path = quote(
            environ["SCRIPT_NAME"] + environ["PATH_INFO"], safe="/:@!$&'()*+,;=~", encoding="latin-1"
        )
        query = environ["QUERY_STRING"]
        location = f"{base}{path}?{query}" if query else base + path
        start_response(
            "301 Moved Permanently",
            [("Location", location), ("Content-Type", "text/plain"), ("Content-Length", "0")],
        )
        return []

    return floor


def floor_headers(app: App, policy: HeaderPolicy) -> App:
    """The header list extended by prepared tuples, except for existing names."""
    assert policy.hsts is not None
    assert policy.csp is not None
    ready = [
        ("Strict-Transport-Security", policy.hsts.value),
        (policy.csp.header_name, policy.csp.header_value()),
        *policy.fields,
    ]
    keyed = [(name.lower(), (name, value)) for name, value in ready]

    def floor(environ, start_response):
        def start(status, headers, exc_info=None):
            present = {name.lower() for name, _ in headers}
            return start_response(
                status, headers + [field for key, field in keyed if key not in present], exc_info
            )

        return app(environ, start)

    return floor


def floor_cache(_app: App) -> App:
    """One look-up by host, path and query, one comparison, the age in a new header list."""
    kept = {(HOST, "/articles/17", "page=2"): (ANSWER, b"hello", time.time(), time.time() + 10_000)}

    def floor(environ, start_response):
        if "HTTP_COOKIE" in environ or environ["REQUEST_METHOD"] != "GET":
            raise AssertionError
        key = (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"])
        headers, body, made, until = kept[key]
        now = time.time()
        if now > until or "HTTP_IF_NONE_MATCH" in environ or "HTTP_CACHE_CONTROL" in environ:
            raise AssertionError
        start_response("200 OK", [*headers, ("Age", str(int(now - made)))])
        return [body]

    return floor


# --- ours ---------------------------------------------------------------------------------------------------


def ours(app: App) -> App:
    trusted = ProxyTrust(["10.0.0.0/8", "fd00::/8"])
    return TrustedProxyMiddleware(HTTPSRedirectMiddleware(app, allowed_hosts=[HOST]), trust=trusted)


def ours_in_one(app: App) -> App:
    return HTTPSRedirectMiddleware(app, allowed_hosts=[HOST], trust=ProxyTrust(["10.0.0.0/8", "fd00::/8"]))


def ours_headers(policy: HeaderPolicy) -> Callable[[App], App]:
    return lambda app: SecurityHeadersMiddleware(app, policy=policy)


def ours_cache(app: App) -> App:
    from mks_hardening.cache import MemoryCache

    return ResponseCacheMiddleware(app, cache=MemoryCache(), rules=[CacheRule("/articles/", ttl=10_000)])


def ours_cache_vary(_app: App) -> App:
    def varying(_environ, start_response):
        start_response("200 OK", [*ANSWER, ("Vary", "Accept-Language")])
        return BODY

    return ours_cache(varying)


# --- peers --------------------------------------------------------------------------------------------------


def proxy_fix(app: App) -> App:
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(app, x_for=1, x_proto=1, x_host=1)


def waitress(app: App) -> App:
    from waitress.proxy_headers import proxy_headers_middleware

    headers = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    return proxy_headers_middleware(app, trusted_proxy="10.0.0.1", trusted_proxy_headers=headers)


def django(*middleware: str) -> Callable[[App], App]:
    def build(_app: App) -> App:
        import django as package
        from django.conf import settings
        from django.core.handlers.wsgi import WSGIHandler
        from django.http import HttpResponse
        from django.urls import re_path

        globals()["urlpatterns"] = [re_path("", lambda _request: HttpResponse(b"hello"))]
        if not settings.configured:
            settings.configure(
                ALLOWED_HOSTS=[HOST],
                ROOT_URLCONF=__name__,
                SECRET_KEY="x" * 50,
                SECURE_SSL_REDIRECT=True,
                SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
            )
            package.setup()
        settings.MIDDLEWARE = list(middleware)
        return WSGIHandler()

    return build


DJANGO = ("django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware")


def talisman(_app: App) -> App:
    from flask import Flask
    from flask_talisman import Talisman

    flask = Flask("talisman")
    Talisman(flask, force_https_permanent=True)
    flask.add_url_rule("/<path:path>", view_func=lambda **_: "hello", endpoint="all")
    return flask


def flask_alone(_app: App) -> App:
    from flask import Flask

    flask = Flask("alone")
    flask.add_url_rule("/<path:path>", view_func=lambda **_: "hello", endpoint="all")
    return flask


def secure_py(app: App) -> App:
    from secure import Secure
    from secure.middleware.wsgi import SecureWSGIMiddleware

    return SecureWSGIMiddleware(app, secure=Secure.with_default_headers())


# --- measuring ----------------------------------------------------------------------------------------------

WEB = HeaderPolicy.web()
GROUPS: list[tuple[str, dict[str, Any], list[tuple[str, Callable[[App], App]]]]] = [
    (
        "https behind a proxy: trust, host, pass",
        BEHIND_PROXY,
        [
            ("floor", floor_trust),
            ("ours (two wrappers)", ours),
            ("ours (redirect with trust)", ours_in_one),
            ("Werkzeug ProxyFix (no redirect, no peer check)", proxy_fix),
            ("waitress proxy_headers (no redirect)", waitress),
            ("Django alone", django()),
            ("Django Security + Common", django(*DJANGO)),
            ("Flask alone", flask_alone),
            ("Flask + Talisman", talisman),
        ],
    ),
    (
        "plain http: redirect",
        PLAIN,
        [
            ("floor", floor_redirect),
            ("ours", ours),
            ("ours (one wrapper)", ours_in_one),
            ("Django Security + Common", django(*DJANGO)),
            ("Flask + Talisman", talisman),
        ],
    ),
    (
        "headers over https",
        SECURE,
        [
            ("floor", lambda app: floor_headers(app, WEB)),
            ("ours, web", ours_headers(WEB)),
            ("ours, strict with nonce", ours_headers(HeaderPolicy.strict())),
            ("secure.py", secure_py),
            ("Flask + Talisman", talisman),
        ],
    ),
    (
        "response cache in memory: a hit",
        NOBODY,
        [
            ("floor", floor_cache),
            ("ours", ours_cache),
            ("ours, one of two languages", ours_cache_vary),
        ],
    ),
]


def start_response(*_head: Any) -> None:
    return None


def microseconds(app: App, environ: dict[str, Any]) -> float:
    requests = [environ.copy() for _ in range(CALLS)]
    started = time.thread_time_ns()  # the time of this thread alone, so that neighbours count less
    for each in requests:
        for _ in app(each, start_response):
            pass
    return (time.thread_time_ns() - started) / CALLS / 1e3


def measure(environ: dict[str, Any], contenders: dict[str, App], rounds: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for app in contenders.values():
        microseconds(app, environ)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, app in contenders.items():
            samples[name].append(microseconds(app, environ))
    gc.enable()
    return {name: statistics.median(values) for name, values in samples.items()}


HUNDRED_KILOBYTES = {
    "letters": "a" * 100_000,
    "commas": "," * 100_000,
    "quotes": '"' * 100_000,
    "escaped quotes": '\\"' * 50_000,
    "semicolons": ";" * 100_000,
    "addresses": "10.0.0.1," * 11_111,
    "elements": "for=10.0.0.1;proto=https," * 4_000,
    "dots": "." * 100_000,
    "slashes": "/." * 50_000,
    "brackets": "[" * 100_000,
    "blanks": " " * 100_000,
}
READ = ("FORWARDED", "HOST", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PREFIX",
        "COOKIE", "ORIGIN", "REFERER", "ACCEPT", "X_CSRF_TOKEN")  # fmt: skip


def long_values() -> None:
    """Measure the whole stack with one enormous value in each field that it reads, under WSGI and ASGI."""
    print("\n100 kB in every header field, path and query at once")
    stacks = []
    longest: dict[str, float] = {}
    for family in ("x-forwarded", "forwarded"):
        app = CSRFMiddleware(bare, allowed_origins=[f"https://{HOST}"])
        app = HTTPSRedirectMiddleware(app, allowed_hosts=[HOST, ".example.org"], api_paths=["/api/"])
        stacks.append(TrustedProxyMiddleware(app, trust=ProxyTrust(["10.0.0.0/8"], family=family)))
    for name, value in HUNDRED_KILOBYTES.items():
        fields = {f"HTTP_{key}": value for key in READ}
        environ = request(**fields, REQUEST_METHOD="POST", PATH_INFO="/" + value, QUERY_STRING=value)
        worst = 0.0
        for stack in stacks:
            for host in (value, HOST):
                once = {**environ, "HTTP_HOST": host, "HTTP_X_FORWARDED_HOST": host}
                started = time.thread_time_ns()
                stack(once, start_response)
                worst = max(worst, (time.thread_time_ns() - started) / 1e6)
        longest[name] = worst
        print(f"  {name:50} {worst:8.2f} ms")
    keep("100 kB in every header field", longest)


def main(rounds: int) -> None:
    for title, environ, builders in GROUPS:
        contenders: dict[str, App] = {"bare": bare}
        for name, build in builders:
            try:
                contenders[name] = build(bare)
            except ImportError as error:
                print(f"{name}: {error}")
        medians = measure(environ, contenders, rounds)
        floor = medians["floor"] - medians["bare"]
        print(f"\n{title} (bare application {medians['bare']:.2f} µs)")
        keep(title, {name: median - medians["bare"] for name, median in medians.items() if name != "bare"})
        for name, median in medians.items():
            added = median - medians["bare"]
            if name != "bare":
                print(f"  {name:50} {added:8.2f} µs  {added / floor:7.2f} x floor")
    long_values()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 101)

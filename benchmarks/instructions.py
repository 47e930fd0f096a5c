"""Instructions of the five hottest paths, counted by valgrind: the same on a busy machine as on a quiet one.

    python benchmarks/instructions.py [path ...]

Needs valgrind (``apt-get install valgrind``). Each path is called a few hundred times in one process under
callgrind; the figure is the number of instructions of one call. Two runs of the same code differ by less than 1 %.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import keep

WARM_UP, CALLS = 300, 200
#: The profiler writes its counts and starts again whenever this function of the C library is called.
MARK = "getppid"


def log_record() -> Callable[[], object]:
    from mks_hardening.logging import JsonFormatter

    extra = {"method": "GET", "path": "/api/items/12", "status": 200, "bytes": 5120, "duration_ms": 12.5}
    formatter, logger = JsonFormatter(), logging.getLogger("app")
    record = logger.makeRecord("app", 20, __file__, 1, "request finished", (), None, extra=extra)
    return lambda: formatter.format(record)


def redacted_message() -> Callable[[], object]:
    from mks_hardening.logging import SecretRedactor

    redactor = SecretRedactor()
    return lambda: redactor.redact_text("login with password=hunter2 refused")


def edge() -> Callable[[], object]:
    from mks_hardening.wsgi import (
        HeaderPolicy,
        ProxyTrust,
        RequestLoggingMiddleware,
        SecurityHeadersMiddleware,
        TrustedProxyMiddleware,
    )

    log = logging.getLogger("mks_hardening.request")
    log.propagate = False
    log.addHandler(logging.NullHandler())

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "5")])
        return [b"hello"]

    headers = SecurityHeadersMiddleware(app, policy=HeaderPolicy.web())
    stack: Any = TrustedProxyMiddleware(RequestLoggingMiddleware(headers), trust=ProxyTrust(["10.0.0.0/8"]))
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/articles/17",
        "QUERY_STRING": "page=2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "www.example.com",
        "HTTP_X_FORWARDED_FOR": "203.0.113.9",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_ACCEPT": "text/html",
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "http",
    }

    def call() -> None:
        body = stack(dict(environ), lambda *_: None)
        list(body)
        body.close()

    return call


def rate_limit() -> Callable[[], object]:
    from mks_hardening.security import Limit, RateLimiter

    limits = [Limit("minute", 10**6, 60.0), Limit("hour", 10**6, 3600.0), Limit("day", 10**6, 86400.0)]
    limiter = RateLimiter({"g": limits}, strategy="gcra")
    return lambda: limiter.hit("g", "client")


def cached_hit() -> Callable[[], object]:
    from mks_hardening.cache import MemoryCache, cached

    @cached(cache=MemoryCache(), ttl=600)
    def function(number: int, name: str) -> str:
        return name * number

    return lambda: function(1, "x")


PATHS: dict[str, Callable[[], Callable[[], object]]] = {
    "log record, five extra fields": log_record,
    "message with a secret, redacted": redacted_message,
    "request through proxies, record and headers": edge,
    "rate limit in memory, three limits": rate_limit,
    "hit of @cached in memory": cached_hit,
}


def call_paths(names: list[str]) -> None:
    calls = [PATHS[name]() for name in names]
    for call in calls:
        for _ in range(WARM_UP):
            call()
        os.getppid()
        for _ in range(CALLS):
            call()
        os.getppid()


def count(names: list[str]) -> dict[str, int]:
    """Return the instructions of one call of each path.

    Raises:
        CalledProcessError: the program or valgrind failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}"]
        command.append(f"--callgrind-out-file={folder}/out")
        command += [sys.executable, __file__, "--under-valgrind", *names]
        # A fixed seed: dictionaries collide in the same way in every run.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        totals = {
            int(path.suffix[1:]): int(path.read_text().rpartition("\ntotals: ")[2])
            for path in Path(folder).glob("out.*")
        }
    # A dump before the measured calls of each path, and one after them.
    return {name: totals[2 * number + 2] // CALLS for number, name in enumerate(names)}


def main() -> None:
    if sys.argv[1:2] == ["--under-valgrind"]:
        call_paths(sys.argv[2:])
        return
    names = [name for name in PATHS if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    if shutil.which("valgrind") is None:
        print("instructions: valgrind is not installed, not counted")
        return
    counted = count(names)
    print("instructions of one call")
    for name, number in counted.items():
        print(f"  {name:52} {number:10,}")
    keep("instructions", counted)


if __name__ == "__main__":
    main()

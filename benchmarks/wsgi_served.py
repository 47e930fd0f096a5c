"""Whole stacks under gunicorn (one sync worker each), requested by wrk over four connections.

    python benchmarks/wsgi_served.py [rounds]

Needs gunicorn and wrk, on Linux. All servers run side by side and are measured in turn. The figure is the number of
requests per second of the worker's CPU time (median of the rounds), so that other load on the machine matters less.
The floor stack consists of the minimal versions of each group: trust, headers, record and session check. Peers that
are not installed are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from figures import keep

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

SESSION_ID = "A" * 43
HEADERS = {
    "Host": "www.example.com",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "Cookie": f"theme=dark; __Host-mks-session={SESSION_ID}",
}
SECONDS = 2


def page(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "5")])
    return [b"hello"]


def bare():
    return page


def floor():
    import wsgi as edge
    from wsgi_record_session import FloorRecord, FloorSession, quiet_logger

    from mks_hardening._edge.session.session_ids import key_of
    from mks_hardening.wsgi import HeaderPolicy

    app = FloorSession(page, {key_of(SESSION_ID): time.time() + 10_000})
    app = FloorRecord(app, quiet_logger("bench"))
    app = edge.floor_headers(app, HeaderPolicy.web())
    return edge.floor_trust(app, peer="127.0.0.1")


def ours():
    from wsgi_record_session import quiet_logger

    from mks_hardening import wsgi
    from mks_hardening._edge.session.session_ids import key_of
    from mks_hardening.protocols import SessionRecord

    store, now = wsgi.MemorySessionStore(), time.time()
    store.create(SessionRecord(key_of(SESSION_ID), "alice", now, now, now + 1800), now=now)
    app = wsgi.CSRFMiddleware(page, allowed_origins=["https://www.example.com"])
    app = wsgi.SessionTimeoutMiddleware(app, store=store)
    app = wsgi.HTTPSRedirectMiddleware(app, allowed_hosts=["www.example.com"])
    app = wsgi.RequestLoggingMiddleware(app, logger=quiet_logger("bench"))
    app = wsgi.SecurityHeadersMiddleware(app, policy=wsgi.HeaderPolicy.web())
    return wsgi.TrustedProxyMiddleware(app, trust=wsgi.ProxyTrust(["127.0.0.1"]))


def proxy_fix():
    import wsgi as edge

    return edge.proxy_fix(page)


def secure_py():
    import wsgi as edge

    return edge.secure_py(edge.proxy_fix(page))


def flask_talisman():
    from werkzeug.middleware.proxy_fix import ProxyFix
    from wsgi import talisman

    return ProxyFix(talisman(page), x_for=1, x_proto=1, x_host=1)


CONTENDERS = {
    "bare": (bare, ()),
    "floor stack": (floor, ()),
    "ours, whole edge with session": (ours, ()),
    "Werkzeug ProxyFix alone": (proxy_fix, ("werkzeug",)),
    "secure.py + ProxyFix": (secure_py, ("secure", "werkzeug")),
    "Flask + ProxyFix + Talisman": (flask_talisman, ("flask_talisman",)),
}


def __getattr__(name: str) -> Any:
    """Return the application that gunicorn imports, such as ``wsgi_served:app_ours``."""
    if name.startswith("app_"):
        return globals()[name.removeprefix("app_")]()
    raise AttributeError(name)


def start(builder: str) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-w", "1", "--no-control-socket", "--log-level", "error"]
    process = subprocess.Popen(
        [*command, "--forwarded-allow-ips", "", "-b", f"127.0.0.1:{port}", f"wsgi_served:app_{builder}"],
        cwd=FOLDER,
    )
    for _ in range(200):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.05)
    raise SystemExit(f"{builder} did not start")


def worker_seconds(master: int) -> float:
    """Return the CPU time of the master's only child."""
    child = Path(f"/proc/{master}/task/{master}/children").read_text().split()[0]
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests_per_second(master: int, port: int) -> float:
    headers = [argument for name, value in HEADERS.items() for argument in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", "-c4", f"-d{SECONDS}s", *headers, f"http://127.0.0.1:{port}/articles/17"]
    before = worker_seconds(master)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(output)
    done = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    return done / (worker_seconds(master) - before)


def main(rounds: int) -> None:
    if shutil.which("wrk") is None:
        print("wrk is not installed (apt-get install wrk): not measured")
        return
    servers = {}
    try:
        for name, (build, needed) in CONTENDERS.items():
            if all(find_spec(package) for package in needed):
                servers[name] = start(build.__name__)
        samples: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, (process, port) in servers.items():
                samples[name].append(requests_per_second(process.pid, port))
    finally:
        for process, _ in servers.values():
            os.kill(process.pid, signal.SIGTERM)
            process.wait()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    keep("requests per second through gunicorn", medians)
    for name, median in medians.items():
        share = median / medians["floor stack"]
        spread = (max(samples[name]) - min(samples[name])) / median / 2
        print(f"  {name:34} {median:8.0f} requests/s  {share:5.2f} x floor stack  (± {spread:.0%})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

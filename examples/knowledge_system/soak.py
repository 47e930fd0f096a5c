"""Repeats the scenario in which a worker once hung: Redis is restarted at its limit of clients.

``python examples/knowledge_system/soak.py --times 200``, from the root of the repository. One demonstration with
two workers and Redis runs all the time. In each round, idle clients use all connections that Redis accepts while
users read and sign in; Redis is restarted, and then eight simultaneous requests must get responses. A request
without a response is printed with the output of the application's watchdog.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

import redis  # noqa: E402
import requests  # noqa: E402

from knowledge_system.demo.visitor import BrowserClient  # noqa: E402
from knowledge_system.settings import DEMO_PASSWORD  # noqa: E402
from testbed.polling import free_port  # noqa: E402
from testbed.redis_server import RedisServer  # noqa: E402

_PLACES = 40


def main() -> int:
    """Run the rounds; return 1 if a request got no response."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="rounds")
    parser.add_argument("--patience", type=float, default=15, help="seconds for each answer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, demo(Path(name)) as (server, url, folder):
        lost = 0
        for number in range(1, options.times + 1):
            lost += round_of(server, url, folder, options.patience)
            sys.stdout.write(f"round {number}: {lost} requests without an answer so far\n")
            sys.stdout.flush()
    sys.stdout.write(f"{options.times} rounds, {options.times * 8} requests, {lost} without an answer\n")
    return 1 if lost else 0


@contextlib.contextmanager
def demo(folder: Path) -> Iterator[tuple[RedisServer, str, Path]]:
    """Start a demonstration with a separate Redis that accepts few clients."""
    server = RedisServer(folder / "redis", options={"maxclients": str(_PLACES)})
    server.start()
    https, http = free_port(), free_port()
    log = folder / "demo.log"
    arguments = ["demo", "--data", str(folder / "demo"), "--https-port", str(https), "--http-port", str(http)]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, "-m", "knowledge_system", *arguments],
            env={**os.environ, "MKS_REDIS_URL": server.url, "MKS_GUNICORN_WORKERS": "2"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while "Ctrl-C" not in log.read_text(encoding="utf-8"):
            if process.poll() is not None:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield server, f"https://localhost:{https}", folder / "demo"
    finally:
        process.terminate()
        process.wait(60)
        server.close()


def round_of(server: RedisServer, url: str, folder: Path, patience: float) -> int:
    """Run one round; return how many of the eight requests got no response."""
    person = BrowserClient(url, folder / "tls/ca.pem", agent="soak")
    with contextlib.suppress(requests.RequestException):
        person.sign_in("tanaka", DEMO_PASSWORD)
    takers = [redis.Redis(port=server.port, socket_timeout=1) for _ in range(_PLACES)]
    for taker in takers:
        with contextlib.suppress(redis.RedisError):
            taker.ping()
    with contextlib.suppress(requests.RequestException):
        person.get("/articles")
    server.restart()
    for taker in takers:
        taker.close()

    def ask(_number: int) -> bool:
        try:
            requests.get(
                f"{url}/sign-in", verify=str(folder / "tls/ca.pem"), timeout=patience, allow_redirects=False
            )
        except requests.RequestException as error:
            sys.stdout.write(f"no answer: {type(error).__name__}\n")
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(ask, range(8)))
    if not all(answered):
        lines = (folder / "app.log").read_text(encoding="utf-8").splitlines()
        sys.stdout.write("\n".join(line for line in lines if "web.watchdog" in line) + "\n")
    return answered.count(False)


if __name__ == "__main__":
    raise SystemExit(main())

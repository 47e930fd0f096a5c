"""Test every promise of the deployment kit on this machine and write the result table: ``make verify-deploy``.

Promises that are covered by tests run as tests. With debootstrap, the page for other applications is also typed
on a bare Debian and timed (``tools/bare_debian.py``). Load is measured here, with nginx, gunicorn, PostgreSQL
and Redis, the example application, and as many readers as the promise says. ``--no-load`` skips these
measurements, ``--only-load`` and ``--only-bare`` everything else; skipped rows keep their former results.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bare_debian import measure
from deploy_page import LOADS, PAGES, TESTED, Row, merged, page

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "deploy" / "tests"
sys.path.insert(0, str(ROOT / "tests" / "support"))


_SAID = {promise.key: promise.en for promise in (*TESTED, *LOADS)}
_LOOKED_AT_AGAIN = 3
_PROMISED = (1000, 10_000)
_BARE_MINUTES = 10
# Tests check the rate limits; here they would distort the measurement.
_WIDE = {
    "edge": 'proxies_in_front = ["127.0.0.0/8", "10.213.7.0/30"]\nconnections_per_address = 5000\n'
    "sign_in_per_minute = 600\nrequests_per_second = 10000\nburst = 100000",
    "listen": "any",
    "workers": "2",
    "threads": "16",
}


def main() -> int:
    """Run the selected parts; return 1 if a promise does not hold."""
    options = _options()
    started = time.monotonic()
    rows: list[Row] = []
    if not (options.only_load or options.only_bare):
        rows += _shown(tested(slow_alone=options.only_slow))
    if not options.only_load and shutil.which("debootstrap"):
        rows += _shown(typed_on_bare_debian())
    if not (options.no_load or options.only_bare):
        rows += _shown(loaded(options))
    if not (options.no_load or options.only_load or options.only_bare or options.only_slow):
        took = f"{(time.monotonic() - started) / 60:.0f} minutes"
        rows += _shown(iter([Row("whole", all(row.holds for row in rows), took)]))
    # Only the promised load can confirm the promise;
    # and only all tests, not a part of them.
    if not (options.no_page or options.only_slow) and (options.connections, options.articles) == _PROMISED:
        _write(rows)
    print(f"{time.monotonic() - started:.0f} s")
    return int(not all(row.holds for row in rows))


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(f"{'✓' if row.holds else '✗'} {_SAID[row.key]}: {row.figure}", flush=True)
        yield row


def _write(rows: list[Row]) -> None:
    """Write both pages; skipped rows keep their results."""
    before = PAGES["en"].read_text(encoding="utf-8") if PAGES["en"].exists() else ""
    run = _this_run()
    known = merged([replace(row, run=run) for row in rows], before)
    for language, file in PAGES.items():
        file.write_text(page(known, language), encoding="utf-8")
        print(f"{file.relative_to(ROOT)} written")


def _this_run() -> str:
    """Return the date and the commit, with a plus if files differ from it."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"{datetime.now(UTC):%Y-%m-%d}, {done.stdout.strip() or 'no commit'}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--no-load", action="store_true", help="skip the load measurements")
    only.add_argument("--only-load", action="store_true", help="run only the load measurements")
    only.add_argument("--only-bare", action="store_true", help="only type the page on a bare Debian")
    parser.add_argument("--only-slow", action="store_true", help="run only the tests that `make test` skips")
    parser.add_argument("--no-page", action="store_true", help="do not write the documentation page")
    parser.add_argument("--connections", type=int, default=_PROMISED[0])
    parser.add_argument("--articles", type=int, default=_PROMISED[1])
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each load measurement")
    return parser.parse_args()


def tested(*, slow_alone: bool) -> Iterator[Row]:
    """Check the promises that are covered by tests, including slow ones."""
    files = [str(file) for file in sorted(TESTS.glob("test_deploy_*.py"))]
    chosen = ["-m", "slow"] if slow_alone else []
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), "-n", "3", "--dist", "worksteal", *chosen, *files)
        failed = [name for name, outcome in cases.items() if outcome == "failed"]
        if os.environ.get("CI") and 1 <= len(failed) <= _LOOKED_AT_AGAIN:
            # As in `tools/run_tests.py`: a test that also fails alone has failed.
            print(f"run again, alone: {', '.join(name for _, name in failed)}", flush=True)
            cases |= _cases(Path(folder), "--last-failed", "-n", "0", *chosen, *files)
    for promise in TESTED:
        of_it = [outcome for (module, _), outcome in cases.items() if promise.key in module]
        passed = of_it.count("passed")
        if of_it or not slow_alone:
            yield Row(promise.key, bool(of_it) and passed == len(of_it), f"{passed} / {len(of_it)}")


def _cases(folder: Path, *arguments: str) -> dict[tuple[str, str], str]:
    """Return the outcomes of a run, by module and name."""
    report = folder / "report.xml"
    options = ["-q", "-o", f"cache_dir={folder}/cache", "--junitxml", str(report)]
    environment = {**os.environ, "MKS_VERIFY_DEPLOY": "1"}
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments], check=False, cwd=ROOT, env=environment
    )
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by pytest, just now
        bad = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        found[case.get("classname", ""), case.get("name", "")] = outcome
    return found


def typed_on_bare_debian() -> Iterator[Row]:
    """Check the promise about a bare Debian."""
    try:
        times = measure()
    except (AssertionError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        yield Row("bare", False, type(error).__name__)
        return
    minutes = f"{times.whole / 60:.1f} minutes, {times.fetching / 60:.1f} of them apt and pip"
    yield Row("bare", times.whole <= _BARE_MINUTES * 60, minutes)


def loaded(options: argparse.Namespace) -> Iterator[Row]:
    """Check the promises that need load measurements."""
    from deploy_load import Load, read

    seconds = options.seconds
    with ExitStack() as stack:
        host, cookies = _site(stack, options.articles, min(options.connections, 200))
        floor = _floor(stack)
        with_pauses = read(Load(host.https, cookies, options.connections, seconds, think=(1, 3)))
        yield Row(
            "readers",
            not with_pauses.errors and with_pauses.share(95) <= 100,
            _figure(with_pauses, seconds),
        )
        without = read(Load(host.https, cookies, 50, seconds / 2, think=None))
        yield Row("closed", not without.errors, _figure(without, seconds / 2))
        yield _beside_floor(Load(host.https, cookies, 16, seconds / 2, think=None, path="/articles"), floor)
        yield _apart(stack, Load(host.https, cookies, options.connections, seconds, think=(4, 6)), floor)
        yield _static(host)
        yield _reloaded("reload", host, lambda: _reload_nginx(host))
        application = host.servers[0]
        yield _reloaded("hangup", host, lambda: _hang_up(application))


def _beside_floor(load: Any, floor: Any) -> Row:
    """Compare clients without pauses: the list of articles, and a page without work."""
    from deploy_load import read

    of_list, of_floor = (read(each) for each in (load, replace(load, port=floor.https, path="/")))
    each, most = (len(outcome.seconds) / load.seconds for outcome in (of_list, of_floor))
    figure = (
        f"{each:.0f} of {most:.0f} requests/s: {each / most:.2f}, {of_list.losses()}; {of_floor.losses()}"
    )
    return Row("sixteen", not (of_list.errors or of_floor.errors), figure)


def _apart(stack: ExitStack, load: Any, floor: Any) -> Row:
    """Let readers come from a network namespace of their own, and subtract what a page without work takes."""
    from deploy_load import read_elsewhere

    near, far = _network(stack)
    load = replace(load, address=near)
    of_pages, of_floor = (
        read_elsewhere(each, *far) for each in (load, replace(load, port=floor.https, path="/"))
    )
    share = of_pages.processor / load.seconds
    figure = f"{_figure(of_pages, load.seconds)}; a page without work {_figure(of_floor, load.seconds)}"
    figure += f"; the readers take {share:.2f} of a processor"
    kept = of_pages.share(95) <= 100 or of_floor.share(95) > 50
    return Row("apart", kept and not (of_pages.errors or of_floor.errors), figure)


def _network(stack: ExitStack) -> tuple[str, list[str]]:
    """Make a network namespace; return the address of this machine in it, and how to start a program there."""
    name, near, far = f"mks-load-{os.getpid()}", "10.213.7.1", "10.213.7.2"

    def ip(*words: str) -> None:
        subprocess.run([shutil.which("ip") or "ip", *words], check=True)

    ip("netns", "add", name)
    stack.callback(ip, "netns", "delete", name)
    ip("link", "add", "mks-near", "type", "veth", "peer", "name", "mks-far", "netns", name)
    ip("address", "add", f"{near}/30", "dev", "mks-near")
    ip("link", "set", "mks-near", "up")
    ip("-n", name, "address", "add", f"{far}/30", "dev", "mks-far")
    ip("-n", name, "link", "set", "mks-far", "up")
    return near, ["ip", "netns", "exec", name]


def _figure(outcome: Any, seconds: float) -> str:
    shares = " / ".join(f"{outcome.share(percent):.0f}" for percent in (50, 95, 99))
    return f"{len(outcome.seconds) / seconds:.0f} requests/s, p50 / p95 / p99 {shares} ms, {outcome.losses()}"


def _site(stack: ExitStack, articles: int, accounts: int) -> tuple[Any, list[str]]:
    from deploy_host import Host
    from deploy_load import sign_in
    from testbed.certificates import Certificates
    from testbed.postgres_server import PostgresServer
    from testbed.redis_server import RedisServer

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    database, redis = (
        PostgresServer(max_connections="120", shared_buffers="128MB"),
        RedisServer(folder / "redis"),
    )
    for server in (database, redis):
        server.start()
        stack.callback(server.stop)
    host = Host(Certificates(folder), application="knowledge_system.app:from_env()", **_WIDE)
    # The timeout of browsers: while workers are replaced, requests wait for the new ones.
    host.patience = 30.0
    stack.callback(host.stop)
    host.render()
    variables = host.application_variables(redis_url=redis.url, postgres_url=database.url("postgres"))
    print(f"filling {articles} articles ...", flush=True)
    names = fill(variables, articles, accounts)
    host.start_application(**variables)
    host.start_nginx()
    print("signing in ...", flush=True)
    cookies = [sign_in(host, name, "load-2026-load", f"198.51.100.{n + 1}") for n, name in enumerate(names)]
    return host, cookies


def _floor(stack: ExitStack) -> Any:
    """Start nginx and gunicorn with the same settings, and a page without work."""
    from deploy_host import Host
    from testbed.certificates import Certificates

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    host = Host(Certificates(folder), application="deploy_echo:trivial()", **_WIDE)
    stack.callback(host.stop)
    host.render()
    host.start_application()
    host.start_nginx()
    return host


def fill(variables: dict[str, str], articles: int, accounts: int) -> list[str]:
    """Create articles, and readers with a cheap password hash; return the names of the readers."""
    from datetime import UTC, datetime

    from werkzeug.security import generate_password_hash

    from knowledge_system import app, database
    from knowledge_system.models import User
    from knowledge_system.settings import AppSettings

    names = [f"reader{number}" for number in range(accounts)]
    settings = AppSettings.from_env(variables)
    with app.open_database(settings) as (engine, search):
        database.upgrade(engine, settings, clock=time)
        sessions = app.session_factory(engine)
        database.fill(sessions, search, password="unused-unused-1", clock=time, number=articles)  # noqa: S106 - of a test
        # A cheap password hash: the readers sign in before the measurement.
        cheap = generate_password_hash("load-2026-load", method="pbkdf2:sha256:1")
        now = datetime.now(UTC)
        with sessions.begin() as session:
            session.add_all(
                User(username=name, display_name=name, role="viewer", password_hash=cheap, created_at=now)
                for name in names
            )
    return names


def _reloaded(key: str, host: Any, reload: Callable[[], None]) -> Row:
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                answer = host.ask("/sign-in")
            except OSError as error:
                seen[type(error).__name__] += 1
                continue
            seen["nothing" if answer is None else str(answer.status)] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        # One after the other, as operators do: workers that are replaced during their start never serve a request.
        answered = seen["200"]
        reload()
        time.sleep(1)
        deadline = time.monotonic() + 30
        while seen["200"] < answered + 16 and time.monotonic() < deadline:
            time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join()
    failed = sum(number for word, number in seen.items() if word != "200")
    figure = f"{failed} / {sum(seen.values())}" + (f": {dict(seen)}" if failed else "")
    return Row(key, failed == 0, figure)


def _reload_nginx(host: Any) -> None:
    subprocess.run(host.nginx_command("-s", "reload"), check=True, capture_output=True)


def _hang_up(server: Any) -> None:
    import signal

    server.signal(signal.SIGHUP)


def _static(host: Any) -> Row:
    """Compare the same file from nginx and from the application."""
    from knowledge_system import web
    from mks_deploy.operations.static_files import publish

    public = host.path("releases") / "public"
    publish(Path(str(web.__file__)).parent.parent / "static", public)
    for path in public.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    fast = _per_second(_Secured(host.https))
    slow = _per_second(_Straight(str(host.socket_file())))
    small = host.ask("/static/app.css", fields={"Accept-Encoding": "gzip"})
    whole = host.ask("/static/app.css")
    again = host.ask("/static/app.css", fields={"If-None-Match": whole.one("ETag")})
    return Row(
        "static",
        again.status == 304 and not again.body and len(small.body) < len(whole.body),
        f"{fast:.0f} : {slow:.0f} requests/s, {len(small.body)} / {len(whole.body)} bytes",
    )


class _Straight(http.client.HTTPConnection):
    """Connection to the application that bypasses nginx."""

    def __init__(self, path: str) -> None:
        super().__init__("knowledge.example.test")
        self._path = path

    def connect(self) -> None:
        """Connect to the socket of the slot."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class _Secured(http.client.HTTPConnection):
    """Connection to nginx over TLS."""

    def __init__(self, tls_port: int) -> None:
        super().__init__("knowledge.example.test")
        self._tls_port = tls_port

    def connect(self) -> None:
        """Connect to this machine, whatever the host name."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self._tls_port))
        self.sock = context.wrap_socket(plain, server_hostname=self.host)


def _per_second(connection: http.client.HTTPConnection) -> float:
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Host": "knowledge.example.test",
    }
    started, number = time.monotonic(), 0
    while time.monotonic() - started < 3:
        connection.request("GET", "/static/app.css", headers=headers)
        if (answer := connection.getresponse()).status != 200:
            raise RuntimeError(f"{answer.status} for a static file")
        answer.read()
        number += 1
    connection.close()
    return number / (time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())

"""Measure the application under every fault of ``faults.py``, one after another."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import outages_kept, site
from bench.fault_report import Figures, broken, figures
from bench.faults import Scenario, TestedSite
from bench.outages import Crowd, Seen, Site, Work

WRITERS = 6
_SETTLE, _CALM, _AFTER = 0.3, 2.0, 2.1
"""Seconds that are not counted, before a fault, and after it."""
_FIELDS = "Host: {0}\r\nOrigin: https://{0}{1}\r\nX-Forwarded-Proto: https\r\nAccept: text/html\r\n"


def measure(
    options: argparse.Namespace,
    scenarios: Sequence[Scenario],
    *,
    load: list[int],
    say: Callable[[str], None],
) -> tuple[list[tuple[Scenario, Figures]], outages_kept.Kept]:
    """Run the scenarios; return the figures of each, and the outcome of all work."""
    # The kernel ends a server together with the thread that started it: threads end after the servers.
    with ThreadPoolExecutor() as threads, _tested_site(options, load, say) as (tested, variables):
        os.sched_setaffinity(0, load)
        crowd, measured = asyncio.run(_run(tested, scenarios, options.readers, threads, say))
        say("waiting for mails and alerts ...")
        outages_kept.wait_until_sent(tested, crowd)
        kept = outages_kept.account(
            tested, tested.database.url("postgres"), Path(variables["MKS_ALERT_SPOOL"]), crowd
        )
    for text in kept.lost:
        say(text)
    rows = []
    for scenario, found, work in measured:
        marks = (*work.remarks, *work.saves)
        rows.append(
            (scenario, replace(found, lost=sum(any(map(text.__contains__, marks)) for text in kept.lost)))
        )
    return rows, kept


@contextmanager
def _tested_site(
    options: argparse.Namespace, load: list[int], say: Callable[[str], None]
) -> Iterator[tuple[TestedSite, dict[str, str]]]:
    """Start the application with a proxy in front of each server, and nginx in front of the application."""
    from deploy_host import HOST, Host
    from testbed.certificates import Certificates
    from testbed.small_disk import small_disk

    with ExitStack() as stack:
        variables, database, redis = site.servers(stack)
        mail, chat = site.receivers(stack)
        folder = Path(variables["MKS_DATA_DIR"])
        host = Host(Certificates(folder), environment="staging")
        stack.callback(host.stop)
        host.render()
        host.socket_file().parent.mkdir(exist_ok=True)
        logs = stack.enter_context(small_disk(folder / "logs", "size=64m"))
        redis_proxy, database_proxy = (site.wire_to(server, stack) for server in (redis, database))
        for proxy in (redis_proxy, database_proxy):
            os.sched_setaffinity(proxy.process_id, load)
        variables |= site.settings_of(mail, chat, folder) | {
            "MKS_LOG_FILE": str(logs / "app.log"),
            "MKS_ALLOWED_HOSTS": f"{site.HOST},{HOST}",
            "MKS_TRUSTED_PROXIES": "127.0.0.0/8,unix",
            "DEPLOY_SLOT": "blue",
        }
        say(f"filling {options.articles} articles ...")
        names = site.fill(variables, options, ["reviewer"] * (options.readers + WRITERS) + ["admin"])
        variables |= {
            "DATABASE_URL": database_proxy.through(variables["DATABASE_URL"]),
            "MKS_REDIS_URL": redis_proxy.through(redis.url),
        }
        command = (
            "-c",
            str(host.path("config") / "gunicorn.conf.py"),
            "--bind",
            f"unix:{host.socket_file()}",
        )
        application = stack.enter_context(
            site.application(variables, "knowledge_system.demo.application", options=command)
        )
        host.start_nginx()
        cookies = [site.sign_in(application.port, name) for name in names]
        others = (cookies, redis, *mail, *chat, options.articles)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        behind = Site(host.https, _FIELDS.format(HOST, f":{host.https}"), *others, tls, HOST)
        yield (
            TestedSite(
                application.port,
                _FIELDS.format(site.HOST, ""),
                *others,
                application=application,
                database=database,
                redis_proxy=redis_proxy,
                database_proxy=database_proxy,
                behind_nginx=behind,
                logs=logs,
            ),
            variables,
        )


async def _run(
    tested: TestedSite,
    scenarios: Sequence[Scenario],
    readers: int,
    threads: ThreadPoolExecutor,
    say: Callable[[str], None],
) -> tuple[Crowd, list[tuple[Scenario, Figures, Work]]]:
    crowd = Crowd(tested, readers=readers, writers=WRITERS, intervals=(0.95, 1.05))
    await crowd.begin()
    say("warming up ...")
    await crowd.spend(20)
    measured, whole = [], Work()
    for scenario in scenarios:
        crowd.work = Work()
        crowd.move(tested.behind_nginx if scenario.nginx else tested)
        found = await _one(tested, crowd, scenario, threads)
        say(f"{scenario.name}: {', '.join(broken(found, scenario.promise)) or 'kept'}")
        measured.append((scenario, found, crowd.work))
        whole.remarks |= crowd.work.remarks
        whole.saves |= crowd.work.saves
    crowd.work = whole
    return crowd, measured


async def _one(tested: TestedSite, crowd: Crowd, scenario: Scenario, threads: ThreadPoolExecutor) -> Figures:
    people, on_thread = asyncio.create_task(crowd.spend(600)), asyncio.get_running_loop().run_in_executor
    parts: list[Seen] = []

    def part() -> float:
        crowd.seen = Seen()
        parts.append(crowd.seen)
        return time.monotonic()

    try:
        await asyncio.sleep(_SETTLE)
        calm = part()
        await asyncio.sleep(_CALM)
        began, fault = part(), scenario.fault(tested)
        # On a thread: the mail server and the proxies respond while one of them is changed.
        await on_thread(threads, fault.__enter__)
        try:
            await asyncio.sleep(scenario.seconds)
        finally:
            await on_thread(threads, fault.__exit__, None, None, None)
        ended = part()
        await asyncio.sleep(_AFTER)
    finally:
        crowd.end = time.monotonic()
        await people
    crowd.phases += parts
    moments = [moment for seen in parts for moment in seen.moments]
    return figures(moments, calm=calm, began=began, ended=ended)

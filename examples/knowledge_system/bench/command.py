"""Commands of the load test: readers of two applications in turn, or users during outages."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import fault_report, fault_run, outages, outages_kept, plots, site
from bench.costs_report import costs_file, lists
from bench.profiled import profile_of, search_alone
from bench.readers import WITH, WITHOUT, read_before, rounds
from bench.report import report
from bench.route_costs import measure

_ROOT = Path(__file__).resolve().parents[3]
_COSTS = _ROOT / "deploy/src/mks_deploy/reference_costs.toml"
_LISTS = _ROOT / "docs/explanation/capacity.md"
WRITERS = 6
"""Beside the readers; twenty times a minute is as often as one may write."""


def main(description: str) -> int:
    """Run the measurement and write the report; return 1 if a response was wrong."""
    options = _options(description)
    if options.costs:
        return _measure_costs(options.articles)
    cores = sorted(os.sched_getaffinity(0))
    servers, load = (cores[:-1][:2], cores[-1:]) if len(cores) > 1 else (cores, cores)
    os.sched_setaffinity(0, servers)  # what is started from here on inherits it
    if options.faults is not None:
        return _measure_faults(options, servers, load)
    if options.outages:
        return _measure_outages(options, servers, load)
    with ExitStack() as stack:
        variables, _, _ = site.servers(stack)
        _say(f"filling {options.articles} articles ...")
        names = site.fill(variables, options, ["viewer"] * options.readers)
        options.published = site.published(variables)
        ports = {
            WITH: stack.enter_context(site.application(variables)).port,
            WITHOUT: stack.enter_context(
                site.application({**variables, "MKS_AREAS_OFF": "cache,notify,tasks"})
            ).port,
        }
        cookies = {which: [site.sign_in(port, name) for name in names] for which, port in ports.items()}
        os.sched_setaffinity(0, load)
        seen = rounds(ports, cookies, options, first=0, say=_say)
        _say("what is read in five minutes ...")
        asyncio.run(read_before(ports[WITH], cookies[WITH], options))
        later = rounds(ports, cookies, options, first=options.rounds + 1, say=_say)
        os.sched_setaffinity(0, servers)
        alone = search_alone(variables)
        profile = {which: profile_of(variables, off) for which, off in ((WITH, ""), (WITHOUT, "cache,"))}
    text = report(options, (seen, later), alone, profile, cores=(servers, load))
    print(text)
    if any(each.errors for phase in (seen, later) for each in phase.values()):
        return 1  # figures of refusals are none
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "README.md").write_text(text, encoding="utf-8")
        (options.write / "waiting.svg").write_text(plots.waiting_plot(seen, later), encoding="utf-8")
        (options.write / "profile.svg").write_text(plots.profile_plot(profile), encoding="utf-8")
    return 0


def _measure_costs(articles: int) -> int:
    measured = measure(articles, _say)
    costs = costs_file(measured, articles=articles)
    _COSTS.write_text(costs, encoding="utf-8")
    text = lists(measured, costs)
    _LISTS.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--outages", action="store_true", help="measure while one server after another is away"
    )
    parser.add_argument(
        "--faults",
        nargs="?",
        const="",
        metavar="PATTERN",
        help="measure under every fault, or those whose name matches; needs root for a small disk",
    )
    parser.add_argument(
        "--costs",
        action="store_true",
        help="measure what a request costs, and write it for mks-deploy capacity",
    )
    parser.add_argument("--articles", type=int, help="10000; 2000 with --outages, --faults or --costs")
    parser.add_argument("--readers", type=int, help="50; 10 with --outages or --faults")
    parser.add_argument("--seconds", type=float, help="30 for each round and application; 15 for each outage")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for the report and its plots")
    options = parser.parse_args()
    usual = {"articles": (10_000, 2000, 2000), "readers": (50, 10, 10), "seconds": (30, 15, 0)}
    which = 2 if options.faults is not None else int(options.outages or options.costs)
    for name, values in usual.items():
        setattr(options, name, getattr(options, name) or values[which])
    return options


def _measure_outages(options: argparse.Namespace, servers: list[int], load: list[int]) -> int:
    everybody = ["reviewer"] * (options.readers + WRITERS) + ["admin"]
    with ExitStack() as stack:
        variables, _, redis = site.servers(stack)
        mail, chat = site.receivers(stack)
        variables |= site.settings_of(mail, chat, Path(variables["MKS_DATA_DIR"]))
        _say(f"filling {options.articles} articles ...")
        names = site.fill(variables, options, everybody)
        with site.application(variables, "knowledge_system.demo.application") as (port, _):
            os.sched_setaffinity(0, load)
            fields = f"Host: {site.HOST}\r\nOrigin: https://{site.HOST}\r\n"
            fields += "X-Forwarded-Proto: https\r\nAccept: text/html\r\n"
            cookies = [site.sign_in(port, name) for name in names]
            place = outages.Site(port, fields, cookies, redis, *mail, *chat, options.articles)
            crowd = asyncio.run(
                outages.run(
                    place, seconds=options.seconds, readers=options.readers, writers=WRITERS, say=_say
                )
            )
            _say("waiting for what is on its way ...")
            outages_kept.wait_until_sent(place, crowd)
        kept = outages_kept.account(
            place, variables["DATABASE_URL"], Path(variables["MKS_ALERT_SPOOL"]), crowd
        )
    text = outages_kept.report(_outage_setting(options, servers, load), crowd.phases, kept)
    print(text)
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "outages.md").write_text(text, encoding="utf-8")
        (options.write / "outages.svg").write_text(plots.outages_plot(crowd.phases), encoding="utf-8")
    return 0


def _measure_faults(options: argparse.Namespace, servers: list[int], load: list[int]) -> int:
    from bench.faults import SCENARIOS

    scenarios = [each for each in SCENARIOS if re.search(options.faults, each.name, re.IGNORECASE)]
    measured, kept = fault_run.measure(options, scenarios, load=load, say=_say)
    rows = [(scenario.name, found, scenario.promise) for scenario, found in measured]
    others = [f"{count} {what}" for what, count in kept.failures().items() if count]
    setting = (
        f"`make bench-app ARGS=--faults`, {datetime.now(UTC):%Y-%m-%d}: {options.articles} articles, "
        f"{options.readers} readers who request a page each second and {fault_run.WRITERS} writers. Servers on "
        f"{len(servers)} core(s), the load generator and the proxies on {len(load)}; Python "
        f"{platform.python_version()}, load of the machine {os.getloadavg()[1]:.1f}. "
        f"Mails that came again with the same `Message-ID`: {kept.repeated}."
    )
    text = fault_report.report(setting, rows, others)
    print(text)
    if options.write and scenarios == list(SCENARIOS):
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "faults.md").write_text(text, encoding="utf-8")
        (options.write / "faults.svg").write_text(plots.faults_plot(rows), encoding="utf-8")
    failures = [
        f"{name}: {', '.join(words)}"
        for name, found, promise in rows
        if (words := fault_report.broken(found, promise))
    ]
    for failure in (*failures, *others):
        _say(f"broken: {failure}")
    return 1 if failures or others else 0


def _outage_setting(options: argparse.Namespace, servers: list[int], load: list[int]) -> str:
    return (
        f"`make bench-app ARGS=--outages`, {datetime.now(UTC):%Y-%m-%d}: {options.articles} articles, "
        f"{options.readers} readers who request a page every 0.4 to 1.2 s and {WRITERS} writers, "
        f"{options.seconds:g} s for each phase. Servers on {len(servers)} core(s), the load generator on "
        f"{len(load)}; Python {platform.python_version()}, load of the machine {os.getloadavg()[1]:.1f}. "
        "Compare rows, not days: how late a timer of the load generator is says what the machine itself adds to "
        "each wait."
    )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)

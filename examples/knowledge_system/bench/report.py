"""Report about the readers: each promise with the measurement."""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime

from bench.profiled import PARTS
from bench.readers import ALL, KINDS, WITH, WITHOUT, Seen

P95 = {"list": 60, "detail": 60, "search": 80}
"""Milliseconds."""
_OTHERS = (
    "`make bench-app ARGS=--faults` measures the application under each fault of a table, and writes `faults.md`; "
    "`ARGS=--outages` while one server after another is down: [outages.md](outages.md)."
)


def report(
    options: argparse.Namespace,
    phases: tuple[dict[str, Seen], dict[str, Seen]],
    alone: dict[str, float],
    profile: dict[str, dict[str, dict[str, float]]],
    *,
    cores: tuple[list[int], list[int]],
) -> str:
    """Return the report on readers, as Markdown."""
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
        _OTHERS,
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
        lines.append(f"| {label} | {cells[0]} | {cells[1]} | {worth(phase, kind):.2f} |")
    every = [each for phase in phases for each in phase.values()]
    answers = sum(len(times) for each in every for times in each.milliseconds.values())
    errors = [error for each in every for error in each.errors]
    result = ", ".join(f"{word} {milliseconds:.1f} ms" for word, milliseconds in alone.items())
    lines += [*_promises(seen, later, alone)]
    lines += [
        "",
        f"- {answers} answers, {len(errors)} errors{': ' + ', '.join(sorted(set(errors))) if errors else ''}.",
        f"- Lists and searches from the cache: {seen[WITH].rate('list', 'search'):.0f} %.",
        *(
            f"- Articles from the cache, {when}: {phase[WITH].rate('detail'):.0f} %; median "
            f"{phase[WITH].median('detail', hit=True):.0f} ms of these, "
            f"{phase[WITH].median('detail', hit=False):.0f} ms of the others."
            for when, phase in (("in the first minutes", seen), ("after five minutes", later))
        ),
        f"- Search by one reader, the whole page, nothing from the cache (median of 15): {result}.",
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


def worth(phase: dict[str, Seen], kind: str) -> float:
    """Return the median with the cache divided by the median without."""
    return phase[WITH].share(kind, 50) / phase[WITHOUT].share(kind, 50)


def _promises(seen: dict[str, Seen], later: dict[str, Seen], alone: dict[str, float]) -> list[str]:
    """Return the table of promises and measurements."""
    fast = seen[WITH]
    rows = [
        *((f"p95 of {kind}, with the cache", fast.share(kind, 95), most, "ms") for kind, most in P95.items()),
        ("search of a frequent word by one reader", max(alone.values()), 15, "ms"),
        ("pages that are not from the cache", 100 - fast.rate(*KINDS), 30, "%"),
        ("median of all pages with ÷ without the cache", worth(seen, ALL), 0.5, ""),
        *(
            (f"the same of articles alone, {when}", worth(phase, "detail"), 0.5, "")
            for when, phase in (("first minutes", seen), ("after five minutes", later))
        ),
    ]
    result = [
        f"| {what} | {most:g} {unit} | {found:.3g} {unit} | {'yes' if found <= most else '**no**'} |"
        for what, found, most, unit in rows
    ]
    return ["", "| promised | at most | measured | kept |", "|---|---|---|---|", *result]

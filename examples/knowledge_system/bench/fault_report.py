"""Figures of a fault, the comparison with what is promised, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from bench.outages import Moment
from bench.readers import share

_SLOW = 1.0
"""Seconds after which a response counts as slow: the application has not recovered."""
_PAGES = "../../../docs/en/"
_COLUMNS = (
    "fault",
    "rate",
    "p50 / p95 / longest ms",
    "refused",
    "signed out",
    "unanswered",
    "failed, wrong, lost",
    "recovered, s",
    "promised",
    "kept",
)
_EXPLANATION = """\
Promised unless a row names a page that promises less: no wrong page, no 5xx without `Retry-After`, no lost work, no
broken connection, 95 % of the responses within 300 ms and all within 1 s, 0.9 of the good responses before, and
recovery within 2 s.
*Refused* means 503 with `Retry-After`, or 429."""


@dataclass(frozen=True)
class Promise:
    """What holds during a fault; wrong pages, unexplained errors and lost work are never allowed.

    Attributes:
        rate: good responses per second, as a share of those before.
        p95: milliseconds within which 95 % of all responses come: there are about fifty during a fault.
        longest: milliseconds within which all of them come; at least ``p95``.
        recovery: seconds after the end within which everything is as before.
        unanswered: requests whose connection may break.
        signed_out: whether users may have to sign in again.
        page: page of the documentation that promises less than the defaults.
    """

    rate: float = 0.9
    p95: float = 300
    longest: float = 1000
    recovery: float = 2
    unanswered: int = 0
    signed_out: bool = False
    page: str = ""


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        rate: good responses per second, as a share of those before.
        results: number of requests by result, during the fault and afterwards.
        p50: median of the milliseconds of a response during the fault.
        p95: milliseconds within which 95 % came.
        longest: milliseconds within which all came.
        recovery: seconds from the end of the fault to the last response that was not good, or slow.
        lost: work that was confirmed, and is missing or there twice.
    """

    rate: float
    results: Counter[str]
    p50: float
    p95: float
    longest: float
    recovery: float
    lost: int = 0


def figures(moments: Sequence[Moment], *, calm: float, began: float, ended: float) -> Figures:
    """Compute the figures from all requests of a scenario, and the moments at which its parts began."""
    before = [each for each in moments if calm <= each.began and each.ended < began]
    during = [each for each in moments if began <= each.began < ended]
    rates = [
        sum(each.result == "good" and start <= each.ended < end for each in moments) / (end - start)
        for start, end in ((calm, began), (began, ended))
    ]
    times = [1000 * (each.ended - each.began) for each in during]
    late = [
        each.ended - ended
        for each in moments
        if each.ended >= ended and (each.result != "good" or each.ended - max(each.began, ended) > _SLOW)
    ]
    results = Counter(each.result for each in moments if each.ended >= began)
    results["failed before"] = sum(each.result in {"failed", "wrong", "unanswered"} for each in before)
    return Figures(
        rates[1] / rates[0] if rates[0] else 0.0,
        +results,
        share(times or [inf], 50),
        share(times or [inf], 95),
        max(times or [inf]),
        max(late, default=0.0),
    )


def broken(found: Figures, promise: Promise) -> list[str]:
    """Return each broken promise, in words."""
    rows = (
        (found.rate < promise.rate, f"rate {found.rate:.2f}"),
        (found.p95 > promise.p95, f"p95 {found.p95:.0f} ms"),
        (found.longest > max(promise.longest, promise.p95), f"longest {found.longest:.0f} ms"),
        (found.recovery > promise.recovery, f"recovery {found.recovery:.1f} s"),
        (found.results["unanswered"] > promise.unanswered, f"{found.results['unanswered']} unanswered"),
        (found.results["signed out"] and not promise.signed_out, f"{found.results['signed out']} signed out"),
        *(
            (found.results[each], f"{found.results[each]} {each}")
            for each in ("failed", "wrong", "failed before")
        ),
        (found.lost, f"{found.lost} lost"),
    )
    return [words for is_broken, words in rows if is_broken]


def report(setting: str, rows: Sequence[tuple[str, Figures, Promise]], others: Sequence[str]) -> str:
    """Return the table as a page; ``others`` are broken promises that belong to no row."""
    lines = [
        "# Measured under faults",
        "",
        setting,
        "",
        _EXPLANATION,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for name, found, promise in rows:
        counts = (found.results[each] for each in ("refused", "signed out", "unanswered"))
        bad = found.results["failed"] + found.results["wrong"] + found.lost
        kept = ", ".join(broken(found, promise))
        cells = (
            name,
            f"{found.rate:.2f}",
            f"{found.p50:.0f} / {found.p95:.0f} / {found.longest:.0f}",
            *map(str, counts),
            str(bad),
            f"{found.recovery:.1f}",
            f"rate {promise.rate:g}, {promise.p95:g} ms: [page]({_PAGES}{promise.page})"
            if promise.page
            else "",
            f"**no: {kept}**" if kept else "yes",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- **{each}**" for each in others), "", "![Rate and p95 under each fault](faults.svg)"]
    return "\n".join(lines) + "\n"

"""Plots of the measurements, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from bench import outages, outages_kept
from bench.fault_report import Figures, Promise, broken
from bench.profiled import PARTS
from bench.readers import KINDS, Seen, share

COLOURS = (
    "#c9ada7",
    "#1f5f8b",
    "#c8553d",
    "#588157",
    "#8a6f3e",
    "#6d597a",
    "#b5838d",
    "#457b9d",
    "#7f8c8d",
    "#2a9d8f",
    "#bbbbbb",
)


def waiting_plot(seen: dict[str, Seen], later: dict[str, Seen]) -> str:
    """Response times for readers of each application, by kind of page."""
    bars = [
        (f"{kind} {which}", [(f"p{percent}", each.share(kind, percent)) for percent in (50, 95)])
        for kind in KINDS
        for which, each in seen.items()
    ]
    bars += [
        (f"detail later {which}", [(f"p{percent}", each.share("detail", percent)) for percent in (50, 95)])
        for which, each in later.items()
    ]
    most = max(value for _, values in bars for _, value in values)
    parts, y = [], 30
    for label, values in bars:
        parts.append(_text(8, y + 20, label))
        for number, (name, value) in enumerate(values):
            width = 380 * value / most
            parts.append(_bar(170, y + 18 * number, width, COLOURS[number]))
            parts.append(_text(176 + width, y + 12 + 18 * number, f"{name} {value:.0f} ms"))
        y += 48
    return _svg(660, y, "How long readers wait", parts)


def profile_plot(profile: dict[str, dict[str, dict[str, float]]]) -> str:
    """Share of each component in the time of a page."""
    names = [*(part for part, _ in PARTS), "other"]
    parts, y = [], 30
    for which, kinds in profile.items():
        for kind, shares in kinds.items():
            parts.append(_text(8, y + 13, f"{kind} {which}"))
            x = 170.0
            for number, name in enumerate(names):
                width = 460 * shares.get(name, 0)
                parts.append(_bar(x, y, width, COLOURS[number]))
                x += width
            y += 26
    for number, name in enumerate(names):
        x, row = 8 + 160 * (number % 4), y + 14 + 22 * (number // 4)
        parts += [_bar(x, row, 14, COLOURS[number]), _text(x + 20, row + 12, name)]
    return _svg(660, y + 90, "Where the time of a page goes", parts)


def outages_plot(phases: Sequence[outages.Seen]) -> str:
    """p99 of each page in each phase, with the promise."""
    parts, y = [], 30
    most = max(outages.MOST, *(outages_kept.worst([seen]) for seen in phases))
    for phase, seen in zip(outages.PHASES, phases, strict=True):
        parts.append(_text(8, y + 30, phase.name))
        for number, page in enumerate(outages.PAGES):
            value = share(seen.milliseconds[page], 99) if seen.milliseconds[page] else 0.0
            width = 380 * value / most
            parts.append(_bar(130, y + 9 * number, width, COLOURS[number], height=8))
            parts.append(_text(136 + width, y + 8 + 9 * number, f"{page} {value:.0f} ms", size=9))
        y += 64
    x = 130 + 380 * outages.MOST / most
    parts.append(f'<path d="M{x:.1f} 24V{y}" stroke="#c8553d" stroke-dasharray="4 3"/>')
    return _svg(660, y, "p99 of each page while a server is away", parts)


def faults_plot(rows: Sequence[tuple[str, Figures, Promise]]) -> str:
    """Rate and p95 under each fault; bars end at twice the usual promise of the p95."""
    parts, y, most = [_text(300, 32, "rate"), _text(520, 32, "p95")], 40, 600.0
    for name, found, promise in rows:
        colour = COLOURS[2] if broken(found, promise) else COLOURS[1]
        parts.append(_text(8, y + 11, name, size=10))
        parts.append(_bar(300, y, 160 * min(1.1, found.rate), colour, height=12))
        parts.append(_text(480, y + 11, f"{found.rate:.2f}", size=10))
        parts.append(_bar(520, y, 200 * min(1, found.p95 / most), colour, height=12))
        parts.append(_text(726, y + 11, f"{found.p95:.0f} ms", size=10))
        y += 17
    marks = (300 + 160 * 0.9, 520 + 200 * outages.MOST / most)
    parts += (f'<path d="M{x:.1f} 36V{y}" stroke="#c8553d" stroke-dasharray="4 3"/>' for x in marks)
    return _svg(800, y + 8, "Rate of good responses and p95 under each fault", parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" role="img" aria-label="{title}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    style = '<g font-family="sans-serif" font-size="12" fill="#222">'
    ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join((head, ground, style, _text(8, 16, title), *parts, "</g>", "</svg>")) + "\n"


def _bar(x: float, y: float, width: float, colour: str, *, height: int = 16) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, *, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{words}</text>'

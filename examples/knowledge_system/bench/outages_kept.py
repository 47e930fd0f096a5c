"""Outcome of the work that users did during outages, and the report about it."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from bench.outages import CALM, MOST, PAGES, PHASES, Crowd, Seen, Site, Work
from bench.readers import share

_SETTLES = 60
"""Seconds after the last outage within which mails and alerts that waited must have gone out."""
_ALONE = "not by itself"
_ON_PURPOSE = "/diagnostics/error"
_REPEATABLE = 2
"""Mails of a run that a crash may repeat. The moment is short: more have another cause."""
_SUMMARY = re.compile(r"アラート \d+ 件")
_REPEATED = re.compile(r"(\d+) 件抑制しました")


@dataclass
class Kept:
    """The outcome.

    Attributes:
        lost: work that was confirmed but is missing or duplicated, in words.
        mails: mails about confirmed remarks: delivered, queued, lost.
        twice: mails that arrived more than once, with another ``Message-ID``.
        repeated: mails that arrived more than once, with the same one: a process was killed, or stalled, after the
            mail server had accepted the mail and before that was recorded (``MailTask``).
        alerts: by channel, alerts that each phase raised: delivered, spooled, not delivered individually.
        counted: by channel, alerts in a summary, or counted as repetitions.
    """

    lost: list[str]
    mails: Counter[str]
    twice: int
    repeated: int
    alerts: dict[str, list[Counter[str]]]
    counted: dict[str, int]

    @property
    def missing(self) -> int:
        """Return the alerts that were not delivered in any form."""
        return sum(
            max(0, sum(each[_ALONE] for each in phases) - self.counted[channel])
            for channel, phases in self.alerts.items()
        )

    def failures(self) -> dict[str, int]:
        """Return the number of each kind of failure that belongs to no single request."""
        return {
            "mails lost": self.mails["lost"],
            "alerts lost": self.missing,
            "mails sent twice": self.twice,
            "mails repeated": self.repeated if self.repeated > _REPEATABLE else 0,
        }


def wait_until_sent(site: Site, crowd: Crowd) -> None:
    """Wait, up to a limit, until delayed mails and alerts have been sent."""
    marks = [mark for mark, status in crowd.work.remarks.items() if status == 303]
    numbers = [number for seen in crowd.phases for number in seen.alerts]
    end = time.monotonic() + _SETTLES
    while time.monotonic() < end:
        letters, result = [letter for _, letter in _letters(site)], _messages(site)
        unsent = [mark for mark in marks if not any(mark in letter for letter in letters)]
        alone = [
            sum(not any(each in text for text in texts) for each in numbers) for texts in (letters, result)
        ]
        if (
            not unsent
            and alone[0] <= _counted(letters)
            and alone[1] <= _counted(result) + _summed_up(result, numbers)
        ):
            return
        time.sleep(1)


def _letters(site: Site) -> list[tuple[str, str]]:
    """Return the ``Message-ID`` and text of each mail that arrived."""
    messages = [each.message for each in tuple(site.smtp.received)]
    bodies = ((each["Message-ID"], each.get_body(("plain", "html"))) for each in messages)
    return [(str(message_id), str(body.get_content())) for message_id, body in bodies if body is not None]


def _messages(site: Site) -> list[str]:
    return [json.dumps(each.json(), ensure_ascii=False) for each in tuple(site.slack.requests)]


def _counted(texts: Sequence[str]) -> int:
    """Count repetitions: alerts that were delayed together are equal and are merged."""
    return sum(int(found) for each in texts if _ON_PURPOSE in each for found in _REPEATED.findall(each))


def account(site: Site, database: str, spool: Path, crowd: Crowd) -> Kept:
    """Check everything; call it after the application has ended."""
    engine, work = create_engine(database), crowd.work
    lost = [*_lost_remarks(engine, work), *_lost_saves(engine, work, crowd.drafts)]
    mailed, result = _letters(site), _messages(site)
    letters = [letter for _, letter in mailed]
    mails, twice, repeated = _mails(engine, work, mailed)
    engine.dispose()
    alerts = {
        channel: [
            Counter(_fate(number, texts, spool / channel) for number in each.alerts) for each in crowd.phases
        ]
        for channel, texts in (("email", letters), ("slack", result))
    }
    numbers = [number for seen in crowd.phases for number in seen.alerts]
    counted = {"email": _counted(letters), "slack": _counted(result) + _summed_up(result, numbers)}
    return Kept(lost, mails, twice, repeated, alerts, counted)


def _summed_up(messages: Sequence[str], numbers: Sequence[str]) -> int:
    """Count alerts in a summary, where Slack's limits leave no room for the request number."""
    summaries = (json.loads(each)["blocks"] for each in messages if _SUMMARY.search(each))
    lines = (json.dumps(block) for blocks in summaries for block in blocks[1:])
    return sum(_ON_PURPOSE in line and not any(number in line for number in numbers) for line in lines)


def _lost_remarks(engine: Engine, work: Work) -> Iterator[str]:
    with engine.connect() as connection:
        stored = Counter(
            connection.execute(text("SELECT body FROM comments WHERE body LIKE '印%'")).scalars()
        )
    for mark, status in work.remarks.items():
        wanted = {303: {1}, 0: {0, 1}}.get(status, {0})
        if stored[mark] not in wanted:
            yield f"remark {mark} was answered with {status} and is there {stored[mark]} times"


def _lost_saves(engine: Engine, work: Work, drafts: Sequence[int]) -> Iterator[str]:
    reads = text("SELECT title FROM revisions WHERE article_id = ANY(:drafts)")
    with engine.connect() as connection:
        stored = Counter(connection.execute(reads, {"drafts": list(drafts)}).scalars())
    for mark, status in work.saves.items():
        wanted = {303: {1}, 0: {0, 1}}.get(status, {0})
        if stored[mark] not in wanted:
            yield f"save {mark} was answered with {status} and is there {stored[mark]} times"


def _mails(engine: Engine, work: Work, mailed: Sequence[tuple[str, str]]) -> tuple[Counter[str], int, int]:
    reads = text("SELECT arguments FROM mks_task WHERE name = 'mks.mail' AND state IN ('waiting', 'running')")
    with engine.connect() as connection:
        waiting = [
            json.dumps(json.loads(each), ensure_ascii=False) for each in connection.execute(reads).scalars()
        ]
    fates, twice, repeated = Counter[str](), 0, 0
    for mark in (mark for mark, status in work.remarks.items() if status == 303):
        came = [message_id for message_id, letter in mailed if mark in letter]
        twice += len(set(came)) > 1
        repeated += len(came) > len(set(came))
        fates[
            "delivered" if came else "in the queue" if any(mark in each for each in waiting) else "lost"
        ] += 1
    return fates, twice, repeated


def _fate(number: str, texts: Sequence[str], folder: Path) -> str:
    if any(number in each for each in texts):
        return "delivered"
    spooled = folder.glob("*") if folder.is_dir() else ()
    return "spooled" if any(number in each.read_text(encoding="utf-8") for each in spooled) else _ALONE


# --- the report ------------------------------------------------------------------------------------


def report(setting: str, phases: Sequence[Seen], kept: Kept) -> str:
    """Return the figures as a page."""
    cells = " | ".join(PAGES)
    lines = [
        "# Measured while a server is away",
        "",
        setting,
        "",
        f"| p50 / p99 ms (answers) | {cells} | timer late, p99 | load |",
        "|---|" + "---|" * (len(PAGES) + 2),
    ]
    away = together(seen for phase, seen in zip(PHASES, phases, strict=True) if phase is not CALM)
    calm = together(seen for phase, seen in zip(PHASES, phases, strict=True) if phase is CALM)
    named = [(phase.name, seen) for phase, seen in zip(PHASES, phases, strict=True)]
    for name, seen in (*named, ("**all calm ones**", calm), ("**all others**", away)):
        times = (seen.milliseconds[page] for page in PAGES)
        row = " | ".join(f"{share(each, 50):.0f} / {share(each, 99):.0f} ({len(each)})" for each in times)
        lines.append(f"| {name} | {row} | {share(seen.late, 99):.0f} | {seen.load:.1f} |")
    lines += [
        "",
        *_promises(phases, kept),
        "",
        "| away | answers | alerts by mail | alerts in Slack |",
        "|---|---|---|---|",
    ]
    for number, (phase, seen) in enumerate(zip(PHASES, phases, strict=True)):
        statuses = sum(seen.statuses.values(), Counter[int]())
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        fates = (_listed(kept.alerts[channel][number]) for channel in ("email", "slack"))
        lines.append(f"| {phase.name} | {answers} | {' | '.join(fates)} |")
    lines += [
        "",
        f"- Mails about remarks: {_listed(kept.mails)}; {kept.twice} came twice.",
        f"- Mails that came again with the same `Message-ID`: {kept.repeated}.",
        f"- Alerts in a summary, or a number beside an equal one: {_listed(Counter(kept.counted))}.",
        *(f"- **Lost: {each}**" for each in kept.lost),
        "",
        "![p99 of each page while a server is away](outages.svg)",
    ]
    return "\n".join(lines) + "\n"


def _promises(phases: Sequence[Seen], kept: Kept) -> Iterator[str]:
    calm = worst([together(seen for phase, seen in zip(PHASES, phases, strict=True) if phase is CALM)])
    away = worst([together(seen for phase, seen in zip(PHASES, phases, strict=True) if phase is not CALM)])
    broken = [
        f"{phase.name}, {each}" for phase, seen in zip(PHASES, phases, strict=True) for each in seen.broken
    ]
    yield from ("| promised | at most | measured | kept |", "|---|---|---|---|")
    rows = [
        (f"p99 of every page while something is away (when nothing is: {calm:.0f} ms)", MOST, away, "ms"),
        ("5xx without a time to come back, or no answer", 0, len(broken), ""),
        ("work that was answered and is lost, or is there twice", 0, len(kept.lost), ""),
        ("mails lost", 0, kept.mails["lost"], ""),
        ("alerts neither delivered, spooled nor counted", 0, kept.missing, ""),
    ]
    for what, most, found, unit in rows:
        yield f"| {what} | {most} {unit} | {found:.0f} {unit} | {'yes' if found <= most else '**no**'} |"
    yield from ("", *(f"- {what}: {count}" for what, count in Counter(broken).items()))


def together(phases: Iterable[Seen]) -> Seen:
    """Merge several phases: in a single one, 1 % of the responses of a page is less than one response."""
    found = Seen()
    for seen in phases:
        for page, times in seen.milliseconds.items():
            found.milliseconds[page] += times
        found.late += seen.late
        found.load = max(found.load, seen.load)
    return found


def worst(seen: Iterable[Seen]) -> float:
    """Return the largest p99 of any page."""
    return max(
        share(each.milliseconds[page], 99) for each in seen for page in PAGES if each.milliseconds[page]
    )


def _listed(fates: Counter[str]) -> str:
    return ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()) if count) or "none"

"""Readers of both applications: their requests, response times and cache hits."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from bench.site import HOST

WORDS = (
    "養生",
    "コンクリート",
    "足場",
    "鉄筋",
    "安全",
    "品質",
    "型枠",
    "検査",
    "土工",
    "測量",
    "工程",
    "試験",
)
KINDS = ("list", "detail", "search")
ALL = "all pages"
"""Of all kinds, as often as readers want each."""
WITH, WITHOUT = "with cache", "without"
KEPT_SECONDS = 300
"""How long the application keeps an article (``ttl`` of its catalogue)."""
PAUSE_SECONDS = 2
"""Between two pages of a reader, on average."""


@dataclass
class Seen:
    """What the readers of one application observed.

    Attributes:
        milliseconds: duration of each response, by kind of page.
        hits: whether each response came from the cache, by kind, if the application reports it.
        errors: wrong responses.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    hits: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def share(self, kind: str, percent: float) -> float:
        """Milliseconds within which so many percent of the answers came; of every kind for ``ALL``."""
        kinds = KINDS if kind == ALL else (kind,)
        return share([time for each in kinds for time in self.milliseconds[each]], percent)

    def rate(self, *kinds: str) -> float:
        """Return the percentage of responses from the cache."""
        hits = [hit for kind in kinds for hit in self.hits[kind]]
        return 100 * sum(hits) / max(1, len(hits))

    def median(self, kind: str, *, hit: bool) -> float:
        """Return the median milliseconds of responses from the cache, or of the others."""
        pairs = zip(self.milliseconds[kind], self.hits[kind], strict=True)
        return share([time for time, found in pairs if found is hit], 50)

    def add(self, other: Seen) -> None:
        """Add the observations of another round."""
        for kind, times in other.milliseconds.items():
            self.milliseconds[kind] += times
        for kind, hits in other.hits.items():
            self.hits[kind] += hits
        self.errors += other.errors


def share(times: Sequence[float], percent: float) -> float:
    """Milliseconds within which so many percent of the answers came."""
    ordered = sorted(times) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def rounds(
    ports: dict[str, int],
    cookies: dict[str, list[str]],
    options: argparse.Namespace,
    *,
    first: int,
    say: Callable[[str], None],
) -> dict[str, Seen]:
    """Measure the readers of both applications in turn; the first round fills connection pools and is discarded."""
    seen = {which: Seen() for which in ports}
    for number in range(first, first + options.rounds + (not first)):
        for which, port in ports.items():
            say(f"round {number or 'to warm up'}, {which} ...")
            length = options.seconds if number else options.seconds / 3
            one = asyncio.run(_read(port, cookies[which], options.published, length, seed=number))
            if number:
                seen[which].add(one)
    return seen


async def read_before(port: int, cookies: Sequence[str], options: argparse.Namespace) -> None:
    """Request the articles that these readers would have requested during the lifetime of a cached article."""
    chance, pages = random.Random("before"), int(options.readers * KEPT_SECONDS / PAUSE_SECONDS)  # noqa: S311 - a reader's choice
    wanted = (_wanted(options.published, chance) for _ in range(pages))
    # In this order, each once: the second time it would come from the cache.
    paths = list(dict.fromkeys(path for kind, path in wanted if kind == "detail"))
    askers = min(4, len(cookies))
    await asyncio.gather(*(_asking(port, cookies[n], paths[n::askers]) for n in range(askers)))


async def _asking(port: int, cookie: str, paths: Sequence[str]) -> None:
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    for path in paths:
        outgoing.write(_question(path, cookie))
        if (await _answer(incoming))[0] != 200:
            raise RuntimeError(f"{path} was refused")
    outgoing.close()


def _question(path: str, cookie: str) -> bytes:
    fields = (
        f"Host: {HOST}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.7\r\nCookie: {cookie}\r\n"
    )
    return f"GET {path} HTTP/1.1\r\n{fields}Accept: text/html\r\n\r\n".encode()


async def _read(
    port: int, cookies: Sequence[str], articles: Sequence[int], seconds: float, *, seed: int
) -> Seen:
    seen = Seen()
    end = time.monotonic() + seconds
    readers = (
        _reader(port, cookie, seen, end, articles, random.Random(f"{seed} {number}"))  # noqa: S311 - a reader's choice
        for number, cookie in enumerate(cookies)
    )
    await asyncio.gather(*readers)
    return seen


async def _reader(  # noqa: PLR0917 - called from one place, above
    port: int, cookie: str, seen: Seen, end: float, articles: Sequence[int], chance: random.Random
) -> None:
    await asyncio.sleep(chance.uniform(0, 3))
    # As nginx does, with a request in hand: a new connection that says nothing keeps a thread of gunicorn waiting.
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        kind, path = _wanted(articles, chance)
        asked = time.perf_counter()
        outgoing.write(_question(path, cookie))
        status, hit = await _answer(incoming)
        seen.milliseconds[kind].append(1000 * (time.perf_counter() - asked))
        if status != 200:
            seen.errors.append(f"{status} {kind}")
        if hit is not None:
            seen.hits[kind].append(hit)
        await asyncio.sleep(chance.uniform(PAUSE_SECONDS - 1, PAUSE_SECONDS + 1))
    outgoing.close()


def _wanted(articles: Sequence[int], chance: random.Random) -> tuple[str, str]:
    """Choose a request: list 3, detail 2, search 1; article popularity follows Zipf, most lists are page 1."""
    kind = chance.choices(KINDS, (3, 2, 1))[0]
    if kind == "list":
        return kind, chance.choice(("/articles", "/articles", f"/articles?category={quote('コンクリート')}"))
    if kind == "detail":
        return kind, f"/articles/{articles[min(int(len(articles) ** chance.random()), len(articles)) - 1]}"
    return kind, f"/articles?q={quote(chance.choice(WORDS))}"


async def _answer(incoming: asyncio.StreamReader) -> tuple[int, bool | None]:
    head = (await incoming.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    await incoming.readexactly(int(fields["content-length"]))
    cache = fields.get("x-cache")
    return int(head.split(" ", 2)[1]), None if cache is None else cache == "hit"

"""Users at work during outages of the servers that the application depends on.

Run by ``python tools/bench_app.py --outages``, which starts the servers. Readers and writers work through phases:
in each, one server is frozen or stopped, with undisturbed phases in between, so that the figures of one run can be
compared. An administrator makes the application fail at intervals, which raises an alert by mail and in Slack.
``outages_kept.py`` checks the outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

PAGES = ("list", "detail", "search", "edit", "remark", "save")
MOST = 300
"""Milliseconds within which 99 % of each kind of page are promised, whatever is away."""
WORDS = ("養生", "コンクリート", "足場", "鉄筋", "安全", "品質")
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_REVISION = re.compile(r'name="revision" value="(\d+)"')


@dataclass(frozen=True)
class Site:
    """The application, and the servers that can fail.

    Attributes:
        port: port of the application.
        fields: header fields of every request: host, scheme and so on.
        cookies: cookies of the signed-in users: readers, then writers, then one administrator.
        redis: the Redis server.
        mail: proxy in front of the mail server.
        smtp: the mail server.
        chat: proxy in front of Slack.
        slack: the stand-in for Slack.
        articles: number of articles.
    """

    port: int
    fields: str
    cookies: Sequence[str]
    redis: Any
    mail: Any
    smtp: Any
    chat: Any
    slack: Any
    articles: int


class Phase(NamedTuple):
    """One outage: what fails, and how it begins and ends."""

    name: str
    begin: Callable[[Site], object] = lambda _site: None
    end: Callable[[Site], object] = lambda _site: None


def _silent(wire: Any) -> None:
    wire.mode = "black_hole"


CALM = Phase("calm")
PHASES = (
    CALM,
    Phase("Redis frozen", lambda site: site.redis.pause(), lambda site: site.redis.resume()),
    CALM,
    Phase("Redis killed", lambda site: site.redis.kill(), lambda site: site.redis.start()),
    CALM,
    Phase("SMTP hangs", lambda site: _silent(site.mail), lambda site: site.mail.heal()),
    Phase("SMTP stopped", lambda site: site.mail.refuse(), lambda site: site.mail.heal()),
    CALM,
    Phase("Slack hangs", lambda site: _silent(site.chat), lambda site: site.chat.heal()),
    Phase("Slack stopped", lambda site: site.chat.refuse(), lambda site: site.chat.heal()),
    CALM,
)


@dataclass
class Seen:
    """What users observed in one phase.

    Attributes:
        milliseconds: duration of each response, by kind of page.
        statuses: number of responses per status, by kind.
        broken: wrong responses, in words.
        alerts: numbers of the requests that failed on purpose.
        late: delay of a timer of the load generator in milliseconds.
        load: load average of the machine.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    broken: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    load: float = 0.0


@dataclass
class Work:
    """What writers sent, and the responses: each remark and each save has a unique mark.

    Attributes:
        remarks: status for each remark, by mark; 0 without a response.
        saves: status for each save, by mark.
    """

    remarks: dict[str, int] = field(default_factory=dict)
    saves: dict[str, int] = field(default_factory=dict)


# --- people ------------------------------------------------------------------------------------------


class Person:
    """A signed-in user, on one connection that is reopened after the server closes it."""

    def __init__(self, site: Site, cookie: str, number: int) -> None:
        self._site = site
        self._head = f"{site.fields}X-Forwarded-For: 198.51.100.{number + 1}\r\nCookie: {cookie}\r\n"
        self._wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._token = ""

    async def ask(self, path: str, form: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], str]:
        """Return status, header fields and body of one response; a form is sent with the token of the last page."""
        body = b"" if form is None else urlencode({"csrf_token": self._token, **form}).encode()
        kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        method, more = ("GET", "") if form is None else ("POST", kind)
        if self._wires is None:
            self._wires = await asyncio.open_connection("127.0.0.1", self._site.port)
        incoming, outgoing = self._wires
        try:
            outgoing.write(f"{method} {path} HTTP/1.1\r\n{self._head}{more}\r\n".encode() + body)
            status, fields, text = await _answer(incoming)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        if fields.get("connection") == "close":
            self.close()
        if found := _TOKEN.search(text):
            self._token = found[1]
        return status, fields, text

    def close(self) -> None:
        """Close the connection."""
        if self._wires is not None:
            self._wires[1].close()
            self._wires = None


async def _answer(incoming: asyncio.StreamReader) -> tuple[int, dict[str, str], str]:
    head = (await incoming.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    fields = {name.lower(): value for name, value in fields.items()}
    body = await incoming.readexactly(int(fields.get("content-length", 0)))
    return int(head.split(" ", 2)[1]), fields, body.decode()


class Crowd:
    """All users, for one phase at a time."""

    def __init__(self, site: Site, *, readers: int, writers: int) -> None:
        self._site, self.work = site, Work()
        people = [Person(site, cookie, number) for number, cookie in enumerate(site.cookies)]
        self._readers, self._writers = people[:readers], people[readers : readers + writers]
        self._administrator = people[-1]
        self._random = random.Random("outages")  # noqa: S311 - what people choose
        self._marks = 0
        self.seen, self.phases = Seen(), list[Seen]()
        self.drafts: list[int] = []

    async def begin(self) -> None:
        """Let each writer create a draft."""
        for number, writer in enumerate(self._writers):
            await writer.ask("/articles/new")
            _, fields, _ = await writer.ask("/articles", {**_DRAFT, "title": f"負荷 {number}"})
            self.drafts.append(int(re.findall(r"/articles/(\d+)", fields["location"])[0]))

    async def spend(self, seconds: float) -> Seen:
        """Work for this many seconds, and return the observations."""
        self.seen, end = Seen(), time.monotonic() + seconds
        await asyncio.gather(
            self._keep_time(end),
            self._fail_now_and_then(end),
            *(self._read(reader, end) for reader in self._readers),
            *(self._write(*each, end) for each in zip(self._writers, self.drafts, strict=True)),
        )
        self.seen.load = os.getloadavg()[0]
        return self.seen

    async def _read(self, reader: Person, end: float) -> None:
        await asyncio.sleep(self._random.uniform(0, 1.2))
        while time.monotonic() < end:
            kind = self._random.choices(PAGES[:4], (3, 3, 1, 2))[0]
            await self._timed(kind, reader, self._wanted(kind))
            await asyncio.sleep(self._random.uniform(0.4, 1.2))

    def _wanted(self, kind: str) -> str:
        if kind == "list":
            return "/articles"
        if kind == "search":
            return f"/articles?q={quote(self._random.choice(WORDS))}"
        # Few articles are read by many (Zipf).
        number = max(1, min(self._site.articles, int(self._site.articles ** self._random.random())))
        return f"/articles/{number}{'/edit' if kind == 'edit' else ''}"

    async def _write(self, writer: Person, draft: int, end: float) -> None:
        await asyncio.sleep(self._random.uniform(0, 3))
        while time.monotonic() < end:
            await self._remark(writer)
            await asyncio.sleep(self._random.uniform(2.5, 3.5))
            if time.monotonic() < end:
                await self._save(writer, draft)
                await asyncio.sleep(self._random.uniform(2.5, 3.5))

    async def _remark(self, writer: Person) -> None:
        article, mark = self._random.randint(1, 50), self._mark()
        if await self._timed("detail", writer, f"/articles/{article}"):
            self.work.remarks[mark] = 0
            form = {"body": mark}
            self.work.remarks[mark] = await self._timed(
                "remark", writer, f"/articles/{article}/comments", form
            )

    async def _save(self, writer: Person, draft: int) -> None:
        mark, page = self._mark(), f"/articles/{draft}/edit"
        status, _, text = await self._asked("edit", writer, page)
        if status == 200:
            self.work.saves[mark] = 0
            form = {**_DRAFT, "title": mark, "revision": _REVISION.findall(text)[0]}
            self.work.saves[mark] = await self._timed("save", writer, page, form)

    def _mark(self) -> str:
        self._marks += 1
        return f"印{self._marks:06d}印"

    async def _timed(self, kind: str, who: Person, path: str, form: Mapping[str, str] | None = None) -> int:
        return (await self._asked(kind, who, path, form))[0]

    async def _asked(
        self, kind: str, who: Person, path: str, form: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        seen, asked = self.seen, time.perf_counter()
        try:
            answer = await who.ask(path, form)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.broken.append(f"{kind}: {type(error).__name__}")
            return 0, {}, ""
        seen.milliseconds[kind].append(1000 * (time.perf_counter() - asked))
        seen.statuses[kind][answer[0]] += 1
        if answer[0] not in {200, 303, 429} and not (answer[0] == 503 and "retry-after" in answer[1]):
            seen.broken.append(f"{kind}: {answer[0]}")
        return answer

    async def _fail_now_and_then(self, end: float) -> None:
        """Raise separate alerts: the failures are further apart than the deduplication window."""
        while time.monotonic() + 2 < end:
            await asyncio.sleep(2.5)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                page, _, _ = await self._administrator.ask("/diagnostics")
                status, fields, _ = await self._administrator.ask("/diagnostics/error", {})
                if (page, status) == (200, 500):
                    self.seen.alerts.append(fields["x-request-id"])

    async def _keep_time(self, end: float) -> None:
        while time.monotonic() < end:
            asked = time.perf_counter()
            await asyncio.sleep(0.02)
            self.seen.late.append(1000 * (time.perf_counter() - asked) - 20)


_DRAFT = {"category": "土工", "summary": "", "body": "x", "tags": "", "status": "draft"}


async def run(site: Site, *, seconds: float, readers: int, writers: int, say: Callable[[str], None]) -> Crowd:
    """Run all phases; ``crowd.phases`` has the observations of each."""
    crowd = Crowd(site, readers=readers, writers=writers)
    await crowd.begin()
    say("warming up ...")
    await crowd.spend(seconds / 2)
    for phase in PHASES:
        say(f"{phase.name} ...")
        # On a thread: the mail server and the wires answer while one of them is changed.
        await asyncio.to_thread(phase.begin, site)
        try:
            crowd.phases.append(await crowd.spend(seconds))
        finally:
            await asyncio.to_thread(phase.end, site)
        await asyncio.sleep(2)  # so that what belongs to the return is in no phase
    return crowd

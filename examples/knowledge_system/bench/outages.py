"""Users at work during outages of the servers that the application depends on.

Run by ``python tools/bench_app.py --outages``, which starts the servers. Readers and writers work through phases:
in each, one server is frozen or stopped, with undisturbed phases in between, so that the figures of one run can be
compared. An administrator makes the application fail at intervals, which raises an alert by mail and in Slack.
``outages_kept.py`` checks the outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from bench.proxy_process import ProxyProcess
from bench.site import sign_in

PAGES = ("list", "detail", "search", "edit", "remark", "save")
MOST = 300
"""Milliseconds within which 99 % of each kind of page are promised, whatever is away."""
WORDS = ("養生", "コンクリート", "足場", "鉄筋", "安全", "品質")
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_REVISION = re.compile(r'name="revision" value="(\d+)"')
_TITLE = re.compile(r"<h1[^>]*>(.*?)</h1>", re.DOTALL)
_WRITES_EVERY = 4.5
"""Seconds between two changes of a writer: one may write twenty times a minute."""
_PATIENCE = 15
"""Seconds that a user waits for a response."""


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
        tls: context of a connection with TLS; without one, requests are sent in clear text.
        tls_name: name of the server in the handshake.
    """

    port: int
    fields: str
    cookies: Sequence[str]
    redis: Any
    mail: ProxyProcess
    smtp: Any
    chat: ProxyProcess
    slack: Any
    articles: int
    tls: ssl.SSLContext | None = None
    tls_name: str | None = None


class Phase(NamedTuple):
    """One outage: what fails, and how it begins and ends."""

    name: str
    begin: Callable[[Site], object] = lambda _site: None
    end: Callable[[Site], object] = lambda _site: None


def _silent(wire: ProxyProcess) -> None:
    wire.change(mode="black_hole")


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


class Moment(NamedTuple):
    """One request.

    Attributes:
        began: when it was sent, in seconds of the monotonic clock.
        ended: when its response was complete.
        result: ``good``, ``refused`` (503 with a time to come back, or 429), ``signed out``, ``failed`` (another
            error), ``unanswered`` (also 502 and 504, by which nginx says so) or ``wrong`` (the page of another user
            or article).
    """

    began: float
    ended: float
    result: str


@dataclass
class Seen:
    """What users observed in one phase.

    Attributes:
        moments: all requests.
        milliseconds: duration of each response, by kind of page.
        statuses: number of responses per status, by kind.
        broken: wrong responses, in words.
        alerts: numbers of the requests that failed on purpose.
        late: delay of a timer of the load generator in milliseconds.
        load: load average of the machine.
    """

    moments: list[Moment] = field(default_factory=list)
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
        self.name = f"reader{number}"
        self._site, self._cookie = site, cookie
        self._address = f"X-Forwarded-For: 198.51.100.{number % 250 + 1}\r\n"
        self._wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._token = ""

    async def ask(self, path: str, form: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], str]:
        """Return status, header fields and body of one response; a form is sent with the token of the last page."""
        body = b"" if form is None else urlencode({"csrf_token": self._token, **form}).encode()
        kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        method, more = ("GET", "") if form is None else ("POST", kind)
        head = f"{self._site.fields}{self._address}Cookie: {self._cookie}\r\n"
        if self._wires is not None and self._wires[0].at_eof():  # the server has closed it since
            self.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._wires is None:
                    self._wires = await asyncio.open_connection(
                        "127.0.0.1", self._site.port, ssl=self._site.tls, server_hostname=self._site.tls_name
                    )
                incoming, outgoing = self._wires
                outgoing.write(f"{method} {path} HTTP/1.1\r\n{head}{more}\r\n".encode() + body)
                status, fields, text = await _answer(incoming)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            raise
        if fields.get("connection") == "close":
            self.close()
        if found := _TOKEN.search(text):
            self._token = found[1]
        return status, fields, text

    async def sign_in_again(self, port: int) -> None:
        """Get a new session, as users do whose session has ended."""
        with contextlib.suppress(OSError, RuntimeError):
            self._cookie = await asyncio.to_thread(sign_in, port, self.name)

    def move(self, site: Site) -> None:
        """Use another address of the application from now on."""
        self.close()
        self._site = site

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

    def __init__(
        self, site: Site, *, readers: int, writers: int, intervals: tuple[float, float] = (0.4, 1.2)
    ) -> None:
        self._site, self._intervals, self.work = site, intervals, Work()
        self._people = people = [Person(site, cookie, number) for number, cookie in enumerate(site.cookies)]
        self._readers, self._writers = people[:readers], people[readers : readers + writers]
        self._administrator = people[-1]
        self._random = random.Random("outages")  # noqa: S311 - what people choose
        self._marks = 0
        self.seen, self.phases = Seen(), list[Seen]()
        self.drafts: list[int] = []
        self.end = 0.0
        self._titles: dict[str, str] = {}

    def move(self, site: Site) -> None:
        """Let everybody use another address of the application from now on."""
        for person in self._people:
            person.move(site)

    async def begin(self) -> None:
        """Let each writer create a draft."""
        for number, writer in enumerate(self._writers):
            await writer.ask("/articles/new")
            _, fields, _ = await writer.ask("/articles", {**_DRAFT, "title": f"負荷 {number}"})
            self.drafts.append(int(re.findall(r"/articles/(\d+)", fields["location"])[0]))

    async def spend(self, seconds: float) -> Seen:
        """Work for this many seconds, and return the observations."""
        self.seen, self.end = Seen(), time.monotonic() + seconds
        await asyncio.gather(
            self._keep_time(),
            self._fail_now_and_then(),
            *(self._read(*each) for each in enumerate(self._readers)),
            *(
                self._write(number, *each)
                for number, each in enumerate(zip(self._writers, self.drafts, strict=True))
            ),
        )
        self.seen.load = os.getloadavg()[0]
        return self.seen

    async def _read(self, number: int, reader: Person) -> None:
        due = time.monotonic() + sum(self._intervals) / 2 * number / len(self._readers)  # evenly spread
        while await self._wait_until(due):
            kind = self._random.choices(PAGES[:4], (3, 3, 1, 2))[0]
            await self._timed(kind, reader, self._wanted(kind))
            # A slow response delays no later request, except when it takes longer than the interval.
            due = max(due + self._random.uniform(*self._intervals), time.monotonic())

    async def _wait_until(self, due: float) -> bool:
        """Wait until then, or until the end if that comes first; return whether there is time left."""
        while (left := min(due, self.end) - time.monotonic()) > 0:  # noqa: ASYNC110 - the end may be moved
            await asyncio.sleep(min(left, 0.2))
        return time.monotonic() < self.end

    def _wanted(self, kind: str) -> str:
        if kind == "list":
            return "/articles"
        if kind == "search":
            return f"/articles?q={quote(self._random.choice(WORDS))}"
        # Few articles are read by many (Zipf).
        number = max(1, min(self._site.articles, int(self._site.articles ** self._random.random())))
        return f"/articles/{number}{'/edit' if kind == 'edit' else ''}"

    async def _write(self, number: int, writer: Person, draft: int) -> None:
        due = time.monotonic() + _WRITES_EVERY * number / len(self._writers)
        for turn in itertools.count():
            if not await self._wait_until(due):
                return
            await (self._remark(writer) if turn % 2 else self._save(writer, draft))
            due = max(due + _WRITES_EVERY, time.monotonic())

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
        seen, began = self.seen, time.monotonic()
        try:
            answer = await who.ask(path, form)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.broken.append(f"{kind}: {type(error).__name__}")
            seen.moments.append(Moment(began, time.monotonic(), "unanswered"))
            return 0, {}, ""
        ended, result = time.monotonic(), self._result(who, path, answer)
        seen.moments.append(Moment(began, ended, result))
        seen.milliseconds[kind].append(1000 * (ended - began))
        seen.statuses[kind][answer[0]] += 1
        if result not in {"good", "refused"}:
            seen.broken.append(f"{kind}: {answer[0]} {result}")
        if result == "signed out":
            await who.sign_in_again(self._site.port)
            return 401, *answer[1:]  # a redirect to the sign-in confirms no work
        return answer

    def _result(self, who: Person, path: str, answer: tuple[int, dict[str, str], str]) -> str:
        status, fields, text = answer
        if status == 401 or fields.get("location", "").startswith("/sign-in"):
            return "signed out"
        if status == 200:
            title = "".join(_TITLE.findall(text)[:1])
            known = self._titles.setdefault(path, title) if re.fullmatch(r"/articles/\d+", path) else title
            return "good" if f"<span>{who.name}</span>" in text and title == known else "wrong"
        if status == 429 or (status == 503 and "retry-after" in fields):
            return "refused"
        if status in {502, 504}:
            return "unanswered"
        return "good" if status == 303 else "failed"

    async def _fail_now_and_then(self) -> None:
        """Raise separate alerts: the failures are further apart than the deduplication window."""
        while time.monotonic() + 2 < self.end:
            await self._wait_until(time.monotonic() + 2.5)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                page, _, _ = await self._administrator.ask("/diagnostics")
                if page in {303, 401}:
                    await self._administrator.sign_in_again(self._site.port)
                status, fields, _ = await self._administrator.ask("/diagnostics/error", {})
                if (page, status) == (200, 500):
                    self.seen.alerts.append(fields["x-request-id"])

    async def _keep_time(self) -> None:
        while time.monotonic() < self.end:
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

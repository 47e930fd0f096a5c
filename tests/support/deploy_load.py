"""Readers of the application over TLS, each on a persistent connection: list, detail and search, with pauses."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from deploy_host import HOST, Answer, Host

WORDS = ("養生", "コンクリート", "足場", "鉄筋", "安全", "品質")
TOKEN = re.compile(rb'name="csrf_token" value="([^"]+)"')


@dataclass(slots=True)
class Outcome:
    """Result of a load.

    Attributes:
        seconds: of each answer.
        errors: what was no good answer.
    """

    seconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def share(self, percent: float) -> float:
        """Return the percentile of the response times in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def error(self, what: str) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1


def sign_in(host: Host, username: str, password: str, address: str) -> str:
    """Sign in and return the cookies; retried if the server is busy."""
    for _ in range(20):
        status, cookies = _try_to_sign_in(host, username, password, address)
        if status == 303:
            return cookies
        assert status == 503, status
        time.sleep(0.5)
    raise AssertionError("the application stayed unavailable")


def _try_to_sign_in(host: Host, username: str, password: str, address: str) -> tuple[int, str]:
    fields = {"X-Forwarded-For": address, "Accept": "text/html"}
    page = _answer(host.ask("/sign-in", fields=fields))
    token = TOKEN.search(page.body)
    if token is None:
        return page.status, ""
    cookies = _cookies(page, {})
    form = urlencode(
        {"username": username, "password": password, "csrf_token": token[1].decode(), "next": "/articles"}
    ).encode()
    fields |= {"Cookie": _header(cookies), "Origin": f"https://{HOST}:{host.https}"}
    fields |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(form))}
    done = _answer(host.say_with(fields, "/sign-in", form))
    return done.status, _header(_cookies(done, cookies))


def read(
    host: Host, cookies: list[str], *, connections: int, seconds: float, think: tuple[float, float] | None
) -> Outcome:
    """Run this number of readers for this long; ``think`` is the pause between requests, ``None`` for none."""
    outcome = Outcome()
    asyncio.run(_all(host, cookies, outcome, connections, seconds, think))
    return outcome


async def _all(  # noqa: PLR0917 - called from one place, above
    host: Host,
    cookies: list[str],
    outcome: Outcome,
    connections: int,
    seconds: float,
    think: tuple[float, float] | None,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    start = asyncio.Event()
    opened: list[int] = []
    readers = [
        asyncio.create_task(_reader(host, own, n, context, outcome, start, opened, seconds, think))
        # Where there are more accounts than readers, each takes turns: the limits of one account are not measured.
        for n in range(connections)
        for own in [cookies[n::connections] or [cookies[n % len(cookies)]]]
    ]
    while len(opened) < connections and not all(reader.done() for reader in readers):  # noqa: ASYNC110 - a thousand report
        await asyncio.sleep(0.1)
    start.set()
    await asyncio.gather(*readers)


async def _reader(  # noqa: PLR0917 - called from one place
    host: Host,
    cookies: list[str],
    number: int,
    context: ssl.SSLContext,
    outcome: Outcome,
    start: asyncio.Event,
    opened: list[int],
    seconds: float,
    think: tuple[float, float] | None,
) -> None:
    chance = random.Random(number)
    fields = f"Host: {HOST}\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n"
    fields += f"X-Forwarded-For: 203.0.{113 + number // 250}.{number % 250 + 1}\r\n"
    # All at once would measure handshakes of the client, not answers.
    await asyncio.sleep(number * 0.004)
    try:
        incoming, outgoing = await asyncio.open_connection(
            "127.0.0.1", host.https, ssl=context, server_hostname=HOST
        )
    except OSError as error:
        outcome.error(f"connect: {type(error).__name__}")
        opened.append(number)
        return
    opened.append(number)
    await start.wait()
    end = time.monotonic() + seconds
    try:
        if think:
            await asyncio.sleep(chance.uniform(0, think[1]))
        while time.monotonic() < end:
            path = _path(chance)
            asked = time.monotonic()
            cookie = chance.choice(cookies)
            outgoing.write(f"GET {path} HTTP/1.1\r\n{fields}Cookie: {cookie}\r\n\r\n".encode())
            status = await asyncio.wait_for(_one_answer(incoming), 30)
            outcome.seconds.append(time.monotonic() - asked)
            if status != 200:
                outcome.error(f"{status} for {path.partition('?')[0]}")
            if think:
                await asyncio.sleep(chance.uniform(*think))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        outcome.error(type(error).__name__)
    finally:
        outgoing.close()


def _path(chance: random.Random) -> str:
    """Choose a path: list 3, detail 2, search 1."""
    kind = chance.randrange(6)
    if kind < 3:
        return "/articles"
    if kind < 5:
        return f"/articles/{chance.randrange(1, 40)}"
    return f"/articles?q={quote(chance.choice(WORDS))}"


async def _one_answer(incoming: asyncio.StreamReader) -> int:
    head = await incoming.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if length:
        await incoming.readexactly(int(length[1]))
    elif b"chunked" in head.lower():
        while size := int(await incoming.readline(), 16):
            await incoming.readexactly(size + 2)
        await incoming.readline()
    return int(head.split(b" ", 2)[1])


def _answer(answer: Answer | None) -> Answer:
    assert answer is not None, "no answer"
    return answer


def _cookies(answer: Answer, before: dict[str, str]) -> dict[str, str]:
    pairs = (value.partition(";")[0].partition("=") for value in answer.all("Set-Cookie"))
    return {**before, **{name: value for name, _, value in pairs if value}}


def _header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())

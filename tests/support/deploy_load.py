"""Readers of the application over TLS, each on a persistent connection: list, detail and search, with pauses.

As a program, it reads the arguments of ``read`` as JSON and writes the outcome, for a load from another place.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
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
        repeated: requests that were sent again on a new connection, as browsers do, because the server had closed
            the former one without a response.
        processor: seconds that the readers themselves took of a processor.
    """

    seconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    processor: float = 0.0

    def share(self, percent: float) -> float:
        """Return the percentile of the response times in milliseconds."""
        if not self.seconds:
            raise RuntimeError(f"no answer at all: {self.errors}")
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def losses(self) -> str:
        """Return the errors and the repeated requests in words."""
        errors = str(self.errors) if self.errors else "0 errors"
        return f"{errors}, {self.repeated} requests repeated on a new connection" if self.repeated else errors

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


@dataclass(frozen=True, slots=True)
class Load:
    """What the readers do.

    Attributes:
        port: port of nginx.
        cookies: cookies of the signed-in users, who take turns: the limits of one account are not measured.
        connections: number of readers.
        seconds: duration.
        think: shortest and longest pause between requests in seconds, ``None`` for no pause.
        address: address of nginx.
        path: the only path that is read; empty for lists, details and searches.
    """

    port: int
    cookies: Sequence[str]
    connections: int
    seconds: float
    think: Sequence[float] | None
    address: str = "127.0.0.1"
    path: str = ""


def read(load: Load) -> Outcome:
    """Run the readers in this process."""
    outcome = Outcome()
    begun = time.process_time()
    asyncio.run(_all(load, outcome))
    outcome.processor = time.process_time() - begun
    return outcome


def read_elsewhere(load: Load, *prefix: str) -> Outcome:
    """Run the readers in another process, which a command such as ``ip netns exec NAME`` starts."""
    done = subprocess.run(
        [*prefix, sys.executable, __file__],
        input=json.dumps(asdict(load)),
        capture_output=True,
        text=True,
        check=True,
    )
    return Outcome(**json.loads(done.stdout))


async def _all(load: Load, outcome: Outcome) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    start = asyncio.Event()
    opened: list[int] = []
    readers = [
        asyncio.create_task(_reader(load, number, context, outcome, start, opened))
        for number in range(load.connections)
    ]
    while len(opened) < load.connections and not all(reader.done() for reader in readers):  # noqa: ASYNC110 - a thousand report
        await asyncio.sleep(0.1)
    start.set()
    await asyncio.gather(*readers)


async def _reader(  # noqa: PLR0917 - called from one place
    load: Load,
    number: int,
    context: ssl.SSLContext,
    outcome: Outcome,
    start: asyncio.Event,
    opened: list[int],
) -> None:
    chance = random.Random(number)
    cookies = load.cookies[number :: load.connections] or [load.cookies[number % len(load.cookies)]]
    fields = f"Host: {HOST}\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n"
    fields += f"X-Forwarded-For: 203.0.{113 + number // 250}.{number % 250 + 1}\r\n"
    connection = _Connection(load, context)
    # All at once would measure handshakes of the client, not answers.
    await asyncio.sleep(number * 0.004)
    try:
        await connection.open()
    except OSError as error:
        outcome.error(f"connect: {type(error).__name__}")
        opened.append(number)
        return
    opened.append(number)
    await start.wait()
    end = time.monotonic() + load.seconds
    try:
        if load.think:
            await asyncio.sleep(chance.uniform(0, load.think[1]))
        while time.monotonic() < end:
            path = load.path or _path(chance)
            asked = time.monotonic()
            cookie = chance.choice(cookies)
            request = f"GET {path} HTTP/1.1\r\n{fields}Cookie: {cookie}\r\n\r\n".encode()
            status, repeated = await asyncio.wait_for(connection.send(request), 30)
            outcome.repeated += repeated
            outcome.seconds.append(time.monotonic() - asked)
            if status != 200:
                outcome.error(f"{status} for {path.partition('?')[0]}")
            if load.think:
                await asyncio.sleep(chance.uniform(*load.think))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        outcome.error(type(error).__name__)
    finally:
        connection.close()


class _Connection:
    """A persistent connection of one reader; opened again if the server has closed it."""

    def __init__(self, load: Load, context: ssl.SSLContext) -> None:
        self._load = load
        self._context = context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        self._streams = await asyncio.open_connection(
            self._load.address, self._load.port, ssl=self._context, server_hostname=HOST
        )

    async def send(self, request: bytes) -> tuple[int, bool]:
        """Return the status of the response, and whether the request was repeated.

        Raises:
            OSError: the connection failed.
            asyncio.IncompleteReadError: a new connection ended without a response, or any within one.
        """
        repeated = False
        while True:
            is_new = self._streams is None
            if self._streams is None:
                await self.open()
            assert self._streams is not None
            incoming, outgoing = self._streams
            try:
                outgoing.write(request)
                head = await incoming.readuntil(b"\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if is_new or getattr(error, "partial", b""):
                    raise
                # Like nginx after a thousand requests, at a reload, or when a connection was idle for too long.
                self.close()
                repeated = True
                continue
            await _read_body(incoming, head)
            if re.search(rb"(?i)\r\nconnection: *close\r\n", head):
                self.close()
            return int(head.split(b" ", 2)[1]), repeated

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()  # a reader does not wait for the end of TLS
            self._streams = None


def _path(chance: random.Random) -> str:
    """Choose a path: list 3, detail 2, search 1."""
    kind = chance.randrange(6)
    if kind < 3:
        return "/articles"
    if kind < 5:
        return f"/articles/{chance.randrange(1, 40)}"
    return f"/articles?q={quote(chance.choice(WORDS))}"


async def _read_body(incoming: asyncio.StreamReader, head: bytes) -> None:
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if length:
        await incoming.readexactly(int(length[1]))
    elif b"chunked" in head.lower():
        while size := int(await incoming.readline(), 16):
            await incoming.readexactly(size + 2)
        await incoming.readline()


def _answer(answer: Answer | None) -> Answer:
    assert answer is not None, "no answer"
    return answer


def _cookies(answer: Answer, before: dict[str, str]) -> dict[str, str]:
    pairs = (value.partition(";")[0].partition("=") for value in answer.all("Set-Cookie"))
    return {**before, **{name: value for name, _, value in pairs if value}}


def _header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def _main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    json.dump(asdict(read(Load(**given))), sys.stdout)


if __name__ == "__main__":
    _main()

"""Load of many readers at once over TLS, each on a kept connection with pauses between its requests."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_deploy.operations.probe import Target

__all__ = ["Readings", "read_concurrently"]

_PAUSE: Final = (1.0, 3.0)
_PATIENCE: Final = 30.0
_LONGEST_BODY: Final = 64 * 1024**2
_PER_SECOND: Final = 250
"""Connections opened per second: all at once would measure the handshakes of this process."""


@dataclass(slots=True)
class Readings:
    """Result of a load.

    Attributes:
        seconds: time of each response with the status 200.
        errors: number of other outcomes, by what happened.
        connections: connections that were open at the same time.
    """

    seconds: list[float] = field(default_factory=list[float])
    errors: Counter[str] = field(default_factory=Counter[str])
    connections: int = 0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the times in milliseconds; 0 without any."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def read_concurrently(
    target: Target, path: str, *, connections: int, seconds: float, pause: tuple[float, float] = _PAUSE
) -> Readings:
    """Read one page with this number of connections for this long.

    Args:
        target: the host; its certificate is not verified again.
        path: page that responds with 200.
        connections: number of connections.
        seconds: duration, from when all are open.
        pause: shortest and longest pause between two requests of a connection, in seconds.
    """
    readings = Readings()
    asyncio.run(_all(target, path, readings, connections=connections, seconds=seconds, pause=pause))
    return readings


async def _all(
    target: Target,
    path: str,
    readings: Readings,
    *,
    connections: int,
    seconds: float,
    pause: tuple[float, float],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = f"GET {path} HTTP/1.1\r\nHost: {target.host}\r\nAccept: text/html\r\n\r\n".encode()

    async def opened(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        await asyncio.sleep(number / _PER_SECOND)
        try:
            return await asyncio.wait_for(
                asyncio.open_connection(
                    target.address or target.host,
                    target.https_port,
                    ssl=context,
                    server_hostname=target.host,
                ),
                _PATIENCE,
            )
        except OSError as error:
            readings.errors[f"connect: {type(error).__name__}"] += 1
            return None

    streams = [each for each in await asyncio.gather(*map(opened, range(connections))) if each]
    readings.connections = len(streams)
    end = time.monotonic() + seconds

    async def reader(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(random.uniform(0, pause[1]))  # noqa: S311 - spreads the load
            while time.monotonic() < end:
                begun = time.monotonic()
                outgoing.write(request)
                status = await asyncio.wait_for(_response(incoming), _PATIENCE)
                if status == 200:
                    readings.seconds.append(time.monotonic() - begun)
                else:
                    readings.errors[f"status {status}"] += 1
                await asyncio.sleep(random.uniform(*pause))  # noqa: S311 - spreads the load
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            readings.errors[type(error).__name__] += 1
        finally:
            # No goodbye: the server has sent all that was asked for.
            outgoing.transport.abort()
            with suppress(OSError):
                await outgoing.wait_closed()

    await asyncio.gather(*(reader(*each) for each in streams))


async def _response(incoming: asyncio.StreamReader) -> int:
    """Read one response to its end; return its status.

    Raises:
        ValueError: it is not HTTP/1.1 with a length or chunks.
        EOFError: it ends early.
    """
    head = (await incoming.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        while length := int((await incoming.readuntil(b"\r\n")).split(b";")[0], 16):
            await incoming.readexactly(min(length, _LONGEST_BODY) + 2)
        await incoming.readuntil(b"\r\n")
    else:
        await incoming.readexactly(min(int(fields["content-length"]), _LONGEST_BODY))
    return status

"""A TCP proxy on loopback that breaks connections as networks do, switchable at run time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from testbed.loop_thread import LoopThread

Mode = Literal["pass", "black_hole", "reset", "half_close", "corrupt", "cut"]


def with_address(url: str, address: str) -> str:
    """Return a URL with another host and port."""
    return re.sub(r"(://(?:[^@/]*@)?)[^/@?]+", rf"\g<1>{address}", url, count=1)


@dataclass
class _LostReply:
    matching: bytes
    skip: int
    then: Literal["reset", "silence"]


class FaultProxy:
    """A proxy between a client and a server.

    All attributes may be set while connections are open; they hold from the next piece of data on.

    Attributes:
        latency: seconds that each piece waits, in both directions.
        bandwidth: bytes a second towards the client; ``None`` for no limit.
        trickle: seconds between two single bytes towards the client; 0 sends pieces whole.
        mode: ``pass``; ``black_hole`` (taken and never forwarded); ``reset`` (RST at the next piece);
            ``half_close`` (the proxy ends its sending side towards the client at the next reply);
            ``corrupt`` (the bits of the first byte of each reply are flipped); ``cut`` (RST after one half of a
            reply).
        connections: connections accepted so far.

    Args:
        host: where the real server is.
        port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.host = "127.0.0.1"
        self.port = 0
        self.connections = 0
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.trickle = 0.0
        self.mode: Mode = "pass"
        self._lost: _LostReply | None = None
        self._thread = LoopThread("testbed-proxy")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    # --- life

    def start(self) -> None:
        """Listen; after ``refuse``, on the same port again."""
        if self._server is None:
            self._thread.run(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, self.host, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Close the port and reset open connections: new connections are refused until ``heal``."""
        self._thread.run(self._stop_listening())
        self.reset_connections()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            # What is being accepted arrives first: CPython 3.11 cannot make its transport once the server is
            # closed, and leaves it open.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None

    def heal(self) -> None:
        """Forward everything again."""
        self.latency, self.bandwidth, self.trickle = 0.0, None, 0.0
        self.mode, self._lost = "pass", None
        self.start()

    def close(self) -> None:
        """Close all sockets."""
        self.refuse()
        self._thread.close()

    # --- faults that happen once

    def reset_connections(self) -> None:
        """Send RST on every open connection now."""
        self._thread.run(self._reset_all())

    async def _reset_all(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)
        await asyncio.sleep(0)

    def lose_reply(
        self, *, matching: bytes = b"", number: int = 1, then: Literal["reset", "silence"] = "reset"
    ) -> None:
        """Forward a request and discard its response, so that the client cannot know whether it was executed.

        Args:
            matching: only requests that hold these bytes count; any when empty.
            number: which of them, 1 for the next one.
            then: what the client sees instead: a reset connection, or nothing.
        """
        self._lost = _LostReply(matching, number - 1, then)

    def through(self, url: str) -> str:
        """Return the same URL with the address of this proxy."""
        return with_address(url, f"{self.host}:{self.port}")

    # --- data

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)  # not in the task, which may be cancelled before its first step
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = {writer}
        try:  # from here on: what is cancelled while it reaches for the server is closed too
            try:
                up_reader, up_writer = await asyncio.open_connection(*self.upstream)
            except OSError:
                _reset(writer)
                return
            ends.add(up_writer)
            self._writers.add(up_writer)
            wire = _Wire(self, writer, up_writer)
            await asyncio.gather(wire.requests(reader), wire.replies(up_reader))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    def takes(self, request: bytes) -> _LostReply | None:
        """Return whether to discard the response to this request."""
        lost = self._lost
        if lost is None or lost.matching not in request:
            return None
        if lost.skip:
            lost.skip -= 1
            return None
        self._lost = None
        return lost


class _Wire:
    """The two directions of one connection."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._losing: _LostReply | None = None

    async def requests(self, reader: asyncio.StreamReader) -> None:
        while piece := await self._read(reader):
            if await self._stopped():
                return
            self._losing = self._losing or self._proxy.takes(piece)
            await _send(self._server, piece)
        with contextlib.suppress(OSError):
            self._server.write_eof()

    async def replies(self, reader: asyncio.StreamReader) -> None:
        while piece := await self._read(reader):
            if await self._stopped() or await self._lose():
                return
            if self._proxy.mode == "half_close":
                break
            if self._proxy.mode == "corrupt":
                piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
            if self._proxy.mode == "cut":
                await _send(self._client, piece[: len(piece) // 2])
                self._reset()
                return
            await self._deliver(piece)
        with contextlib.suppress(OSError):
            self._client.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            piece = await reader.read(65536)
        except OSError:
            piece = b""
        if piece and self._proxy.latency:
            await asyncio.sleep(self._proxy.latency)
        return piece

    async def _stopped(self) -> bool:
        if self._proxy.mode == "reset":
            self._reset()
            return True
        while self._proxy.mode == "black_hole":  # noqa: ASYNC110 - another thread sets the mode
            await asyncio.sleep(0.01)
        return False

    async def _lose(self) -> bool:
        if self._losing is None:
            return False
        if self._losing.then == "reset":
            self._reset()
        else:
            await asyncio.Event().wait()
        return True

    async def _deliver(self, piece: bytes) -> None:
        proxy = self._proxy
        if proxy.trickle:
            for position in range(len(piece)):
                if self._client.is_closing():  # the client did not wait
                    return
                await _send(self._client, piece[position : position + 1])
                await asyncio.sleep(proxy.trickle)
            return
        await _send(self._client, piece)
        if proxy.bandwidth:
            await asyncio.sleep(len(piece) / proxy.bandwidth)

    def _reset(self) -> None:
        _reset(self._client)
        _reset(self._server)


async def _send(writer: asyncio.StreamWriter, piece: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(piece)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

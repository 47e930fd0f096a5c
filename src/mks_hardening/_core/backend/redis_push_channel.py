"""A connection on which Redis reports changes (RESP3 push messages), with non-blocking reads.

redis-py's own reader of such messages blocks in the middle of one. Here any thread may look for messages at any
time, at the cost of one system call.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final, TypeAlias

from mks_hardening._core.backend.redis_types import Client

__all__ = ["MessageReader", "PushChannel", "PushMessage", "RedisMessage"]

_READ_AT_ONCE: Final = 1 << 16
_LONGEST_TEXT: Final = 1 << 20
_MOST_ITEMS: Final = 1 << 20
_LINE_END: Final = b"\r\n"


class PushMessage(tuple["RedisMessage", ...]):
    """A message that is not the response to a command: its kind, and what follows."""

    __slots__ = ()


RedisMessage: TypeAlias = "bytes | int | ValueError | list[RedisMessage] | PushMessage | None"
"""Text, a number, an error response, an array, a push message, or null."""


class MessageReader:
    """Decodes the part of RESP3 (the protocol of Redis since 6.0) that such a connection needs. No I/O.

    Each byte is looked at once, however the messages are cut into pieces.
    """

    __slots__ = ("_at", "_bytes", "_parser", "_whole")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0
        self._whole: list[RedisMessage] = []
        self._parser = self._messages()

    def feed(self, data: bytes) -> list[RedisMessage]:
        """Return the messages that are complete with these bytes.

        Raises:
            ValueError: not RESP3, of an unknown type, or too large; the reader is unusable afterwards.
        """
        self._bytes += data
        try:
            next(self._parser)
        except (StopIteration, RecursionError):
            raise ValueError("a message of Redis cannot be read") from None
        del self._bytes[: self._at]
        self._at = 0
        whole, self._whole = self._whole, []
        return whole

    def _messages(self) -> Generator[None, None, None]:
        while True:
            while self._at == len(self._bytes):
                yield
            message = yield from self._message()
            self._whole.append(message)

    def _message(self) -> Generator[None, None, RedisMessage]:
        kind, text = yield from self._line()
        if kind == b"$":
            return (yield from self._exactly(_number(text, _LONGEST_TEXT)))
        if kind in {b"*", b">"}:
            items: list[RedisMessage] = []
            for _ in range(_number(text, _MOST_ITEMS)):
                items.append((yield from self._message()))  # noqa: PERF401 - a comprehension cannot yield
            return items if kind == b"*" else PushMessage(items)
        if kind == b"+":
            return text
        if kind == b":":
            return int(text)
        if kind == b"-":
            return ValueError(text.decode(errors="replace"))
        if kind == b"_":
            return None
        raise ValueError(f"a message of Redis of the unknown type {kind!r}")

    def _line(self) -> Generator[None, None, tuple[bytes, bytes]]:
        while (end := self._bytes.find(_LINE_END, self._at)) < 0:
            if len(self._bytes) - self._at > _LONGEST_TEXT:
                raise ValueError("a message of Redis is too long")
            yield
        line = bytes(self._bytes[self._at : end])
        self._at = end + len(_LINE_END)
        return line[:1], line[1:]

    def _exactly(self, size: int) -> Generator[None, None, bytes]:
        while len(self._bytes) - self._at < size + len(_LINE_END):
            yield
        text = bytes(self._bytes[self._at : self._at + size])
        self._at += size + len(_LINE_END)
        return text


def _number(text: bytes, most: int) -> int:
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError("a message of Redis is too large")
    return number


class PushChannel:
    """A connection of redis-py that has finished its handshake, from then on read and written here.

    Args:
        connection: the connection, with protocol 3; nothing else may use it.
    """

    __slots__ = ("_connection", "_reader", "_socket")

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._reader = MessageReader()
        self._socket: Client = connection._sock  # noqa: SLF001 - redis-py would read it with waits
        self._socket.setblocking(False)

    def send(self, command: Sequence[object]) -> None:
        """Send a short command; its response is one of the messages.

        Raises:
            OSError: the connection is broken, or the server has stopped reading.
        """
        self._socket.sendall(b"".join(self._connection.pack_command(*command)))

    def receive(self) -> list[RedisMessage]:
        """Return all messages that have arrived, without waiting.

        Raises:
            OSError: the connection is broken.
            ValueError: it delivers something that is not RESP3.
        """
        from ssl import SSLWantReadError  # loaded by redis-py

        messages: list[RedisMessage] = []
        while True:
            try:
                data = self._socket.recv(_READ_AT_ONCE)
            except (BlockingIOError, SSLWantReadError):
                return messages
            if not data:
                raise ConnectionResetError("Redis has closed the connection")
            messages += self._reader.feed(data)

    def wait(self, seconds: float) -> None:
        """Wait until something has arrived, for at most ``seconds``."""
        import selectors  # in the module at each call: gevent replaces the class

        with selectors.DefaultSelector() as selector:
            selector.register(self._socket.fileno(), selectors.EVENT_READ)
            selector.select(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

"""Repeated look-ups of the session of an open WebSocket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mks_hardening.asgi._messages import POLICY_VIOLATION

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import Message, Receive, Send
    from mks_hardening._edge.session.session_gate import SessionGate
    from mks_hardening._edge.session.session_handle import SessionHandle

__all__ = ["SocketRecheck"]


class SocketRecheck:
    """Closes one WebSocket with 1008 when its session has ended.

    A timer between two look-ups, instead of a task that sleeps, costs little for thousands of open sockets. The
    application learns of the closure as of every other: ``receive`` returns ``websocket.disconnect``, and ``send``
    raises an ``OSError`` (ASGI 2.4).

    Args:
        gate: the look-up of sessions.
        interval: seconds between the end of a look-up and the next one.
        handle: the session.
        receive: callable of the server.
        send: callable of the server.

    Attributes:
        error: the exception that ``send`` has raised last.
    """

    def __init__(
        self, gate: SessionGate, interval: float, handle: SessionHandle, receive: Receive, send: Send
    ) -> None:
        self._gate = gate
        self._interval = interval
        self._handle = handle
        self._receive = receive
        self._send = send
        self._session_id: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.error: ConnectionAbortedError | None = None
        self._closed = False
        self._stopped = False

    async def receive(self) -> Message:
        """Pass a message to the application."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.stop()
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server, as long as the socket is open.

        Raises:
            OSError: the session has ended, and the socket was closed.
        """
        kind = message["type"]
        if self._closed:
            if kind == "websocket.close":
                return
            self.error = ConnectionAbortedError("the session of this WebSocket has ended")
            raise self.error
        if kind == "websocket.close":
            self.stop()
        await self._send(message)
        if kind == "websocket.accept":
            self._session_id = self._handle.session_id
            self._schedule()

    def stop(self) -> None:
        """End the look-ups."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _schedule(self) -> None:
        if self._session_id is not None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._start_check)

    def _start_check(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._check(), name="mks-session-recheck")

    async def _check(self) -> None:
        try:
            if self._session_id is not None and await self._gate.ahas_ended(self._session_id):
                # Before the message: the application may send at the same time, and nothing may follow a closure.
                self._closed = self._stopped = True
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})
        finally:
            self._task = None
            self._schedule()

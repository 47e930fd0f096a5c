"""A real SMTP server (aiosmtpd) that fails on demand."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from testbed.certificates import Certificates
from testbed.loop_thread import LoopThread
from testbed.polling import wait_until

Stage = Literal[
    "CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE", "RSET", "NOOP", "QUIT"
]


@dataclass(frozen=True)
class Received:
    """One accepted message."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    content: bytes
    over_tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        """The parsed message."""
        parsed = message_from_bytes(self.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class _Fault:
    reply: str | None
    delay: float
    drop: bool
    times: int


@dataclass
class SmtpServer:
    """An SMTP server on a free loopback port.

    Args:
        certificates: for ``starttls`` and ``tls``; both must be given the fixture ``certificates``.
        security: ``plain`` (STARTTLS is not offered), ``starttls`` (offered and required) or ``tls`` (implicit).
        users: accounts; when there are any, sign-in is required.
        max_size: largest message accepted, in bytes.
    """

    certificates: Certificates | None = None
    security: Literal["plain", "starttls", "tls"] = "plain"
    users: dict[str, str] = field(default_factory=dict)
    max_size: int = 33_554_432

    host: str = field(default="localhost", init=False)
    port: int = field(default=0, init=False)
    received: list[Received] = field(default_factory=list, init=False)
    commands: list[str] = field(default_factory=list, init=False)
    connections: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._faults: dict[str, deque[_Fault]] = {}
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._server: asyncio.Server | None = None
        self._open: set[_Protocol] = set()

    # --- life

    def start(self) -> None:
        """Listen; after a stop, on the same port again."""
        self._thread = LoopThread("testbed-smtp")
        self._thread.run(self._listen())

    async def _listen(self) -> None:
        context = self.certificates.server_context if self.security == "tls" and self.certificates else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Protocol(self, loop), "127.0.0.1", self.port, ssl=context, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close the port and all connections."""
        if self._thread is None:
            return
        self._thread.run(self._close())
        self._thread.close()
        self._thread = None

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for protocol in tuple(self._open):
            if protocol.transport is not None and not protocol.transport.is_closing():
                protocol.transport.abort()  # type: ignore[attr-defined]  # always a write transport
        await asyncio.sleep(0)

    def heal(self) -> None:
        """Delete scripted faults."""
        with self._lock:
            self._faults.clear()

    def reset(self) -> None:
        """Delete messages, commands and scripted faults."""
        self.heal()
        self.received.clear()
        self.commands.clear()
        self.connections = 0

    # --- scripting

    def answer(self, stage: Stage, reply: str | None = None, *, delay: float = 0.0, times: int = 1) -> None:
        """Answer the next ``times`` visits of a stage with ``reply`` (``None``: the default), after ``delay`` s.

        ``MESSAGE`` is the answer after the text of a message, ``DATA`` the one before it, ``CONNECT`` the greeting.
        """
        self._add(stage, _Fault(reply, delay, drop=False, times=times))

    def drop(self, stage: Stage, *, times: int = 1) -> None:
        """Close the connection instead of answering; at ``MESSAGE`` the text has been received."""
        self._add(stage, _Fault(None, 0.0, drop=True, times=times))

    def _add(self, stage: str, fault: _Fault) -> None:
        with self._lock:
            self._faults.setdefault(stage, deque()).append(fault)

    def _next_fault(self, stage: str) -> _Fault | None:
        with self._lock:
            queue = self._faults.get(stage)
            if not queue:
                return None
            queue[0].times -= 1
            return queue[0] if queue[0].times else queue.popleft()

    # --- looking

    def wait_for(self, count: int = 1, *, timeout: float = 10) -> list[Received]:
        """Wait until ``count`` messages were accepted and return all of them."""
        wait_until(lambda: len(self.received) >= count, timeout=timeout, what=f"{count} message(s)")
        return list(self.received)

    def wait_for_command(self, command: str, *, timeout: float = 10) -> None:
        """Wait for a command."""
        wait_until(lambda: command in self.commands, timeout=timeout, what=f"the command {command}")

    # --- aiosmtpd calls these

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        fault = self._next_fault("MESSAGE")
        if fault is not None:
            await asyncio.sleep(fault.delay)
            if fault.reply is not None:
                return fault.reply
        self.received.append(self._message(session, envelope))
        if fault is not None and fault.drop and server.transport is not None:
            server.transport.abort()  # type: ignore[attr-defined]  # always a write transport
        return "250 2.0.0 OK"

    def _message(self, session: Session, envelope: Envelope) -> Received:
        login = session.auth_data
        return Received(
            mail_from=envelope.mail_from or "",
            rcpt_tos=tuple(envelope.rcpt_tos),
            content=envelope.content
            if isinstance(envelope.content, bytes)
            else (envelope.content or "").encode(),
            over_tls=self.security == "tls" or session.ssl is not None,
            user=login.login.decode() if isinstance(login, LoginPassword) else None,
        )

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        ok = isinstance(data, LoginPassword) and self.users.get(data.login.decode()) == data.password.decode()
        return AuthResult(success=ok, handled=False, auth_data=data if ok else None)


class _Protocol(SMTP):
    """aiosmtpd's protocol, which checks the script before each response."""

    def __init__(self, owner: SmtpServer, loop: asyncio.AbstractEventLoop) -> None:
        starttls = owner.security == "starttls"
        super().__init__(
            owner,
            hostname="localhost",
            loop=loop,
            data_size_limit=owner.max_size,
            enable_SMTPUTF8=True,
            tls_context=owner.certificates.server_context if starttls and owner.certificates else None,
            require_starttls=starttls,
            authenticator=owner._authenticate,
            auth_required=False,
            auth_require_tls=starttls,
            auth_exclude_mechanism=() if owner.users else ("LOGIN", "PLAIN"),
        )
        self._owner = owner
        self._auth_required = bool(owner.users)  # set here: the constructor warns about sign-in without TLS
        self._greeted = False
        for name, method in self._smtp_methods.items():
            self._smtp_methods[name] = functools.wraps(method)(
                functools.partial(self._scripted, name, method)
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._owner._open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner._open.discard(self)
        super().connection_lost(error)

    async def _scripted(
        self, name: str, method: Callable[[Any], Coroutine[Any, Any, None]], argument: Any
    ) -> None:
        self._owner.commands.append(name)
        if not await self._faulty("EHLO" if name == "HELO" else name):
            await method(argument)

    async def _faulty(self, stage: str) -> bool:
        """Execute the next scripted fault; return whether it replaces the default response."""
        fault = self._owner._next_fault(stage)
        if fault is None:
            return False
        await asyncio.sleep(fault.delay)
        if fault.drop:
            assert self.transport is not None
            self.transport.abort()  # type: ignore[attr-defined]  # always a write transport
            return True
        if fault.reply is None:
            return False
        await super().push(fault.reply)
        if fault.reply.startswith("421") and self.transport is not None:
            self.transport.close()
        return True

    async def push(self, status: Any) -> None:
        if not self._greeted:  # the first thing pushed is the greeting
            self._greeted = True
            self._owner.connections += 1
            if await self._faulty("CONNECT"):
                return
        await super().push(status)

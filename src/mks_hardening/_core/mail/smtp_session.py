"""Outgoing SMTP: verified TLS or loopback, one deadline for a whole delivery."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

from mks_hardening._core.backend.network_errors import PERMANENT_REASONS, network_error_reason
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.loopback import is_loopback
from mks_hardening._core.origin import hostname
from mks_hardening._core.resilience.connect import connect_within_deadline
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening.exceptions import DeliveryError

__all__ = ["Security", "SmtpSession"]

Security = Literal["starttls", "tls", "plain"]

# Sent in EHLO by a machine without a fully qualified name: servers reject short ones, and a lookup may take long.
_NAMELESS: Final = "[127.0.0.1]"


class SmtpSession:
    """Delivers messages over one connection each.

    Args:
        host: host name of the server, which its certificate must match.
        port: port of the server.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain``.
        loopback_only: whether ``plain`` is restricted to loopback.
        context: SSL context; unused for ``plain``.
        username: user to log in as, or ``None`` for no login.
        password: password of that user.
        timeout: seconds for a whole delivery.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: Security,
        loopback_only: bool,
        context: ssl.SSLContext | None,
        username: str | None,
        password: str | None,
        timeout: float,
    ) -> None:
        self._host = host
        self._port = port
        self._security: Security = security
        self._loopback_only = loopback_only
        self._context = context
        self._username = username
        self._password = password or ""
        self._timeout = timeout
        self._name = _full_name(os.uname().nodename)

    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        body: bytes,
        *,
        before: Callable[[], object] = lambda: None,
    ) -> dict[str, int]:
        """Deliver a message.

        Args:
            sender: envelope sender.
            recipients: envelope recipients.
            body: the message with its header.
            before: called when the connection is ready for the message; an exception ends the delivery.

        Returns:
            The reply code of each rejected recipient.

        Raises:
            DeliveryError: the message was not delivered to anyone, for a reason that does not concern a recipient.
        """
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._timeout
        try:
            with self._connected() as server:
                server.ehlo_or_helo_if_needed()
                if self._username is not None:
                    server.login(self._username, _Utf8(self._password))
                before()
                return _sent(server, sender, recipients, body)
        except smtplib.SMTPException as error:
            raise _refusal(error) from None
        except OSError as error:
            reason = network_error_reason(error)
            raise DeliveryError(reason, temporary=reason not in PERMANENT_REASONS) from None
        finally:
            call_deadline.at = None

    @contextmanager
    def _connected(self) -> Generator[smtplib.SMTP]:
        server = self._connect()
        try:
            yield server
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()

    def _connect(self) -> smtplib.SMTP:
        if self._security == "tls":
            return _TlsClient(
                self._host,
                self._port,
                local_hostname=self._name,
                timeout=self._timeout,
                context=self._context,
            )
        server = _DeadlineSMTP(self._host, self._port, local_hostname=self._name, timeout=self._timeout)
        try:
            self._secure(server)
        except BaseException:
            server.close()
            raise
        return server

    def _secure(self, server: smtplib.SMTP) -> None:
        if self._security == "plain":
            if self._loopback_only and not _leads_to_loopback(server):
                raise DeliveryError("plaintext", temporary=False)
            return
        server.ehlo_or_helo_if_needed()
        if not server.has_extn("starttls"):
            # An attacker may have removed the offer; the message is kept rather than sent in plaintext.
            raise DeliveryError("starttls-not-offered", temporary=False)
        server.starttls(context=self._context)


def _sent(server: smtplib.SMTP, sender: str, recipients: Sequence[str], body: bytes) -> dict[str, int]:
    try:
        refused = server.sendmail(sender, recipients, body)
    except smtplib.SMTPRecipientsRefused as error:  # all of them
        refused = error.recipients
    return {address: code for address, (code, _) in refused.items()}


def _full_name(node: str) -> str:
    return node if "." in node and hostname.parse_host(node) else _NAMELESS


def _leads_to_loopback(server: smtplib.SMTP) -> bool:
    """Whether the connection actually goes to this machine."""
    return server.sock is not None and is_loopback(server.sock.getpeername()[0])


class _Utf8(str):
    """String that is encoded as UTF-8 (RFC 4616, 2) where smtplib encodes as ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002 - always UTF-8
        return super().encode("utf-8", errors)


class _DeadlineSMTP(smtplib.SMTP):
    """SMTP client that connects and reads replies before the deadline, however slowly they arrive."""

    file: Any

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - smtplib's
        return connect_within_deadline(host, port, lambda _: None)

    def auth(self, mechanism: str, authobject: Any, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        def in_utf8(challenge: bytes | None = None) -> Any:
            answer: str | None = authobject(challenge)
            return None if answer is None else _Utf8(answer)

        return super().auth(mechanism, in_utf8, initial_response_ok=initial_response_ok)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = DeadlineSocket(self.sock).makefile()
        return super().getreply()


class _TlsClient(smtplib.SMTP_SSL, _DeadlineSMTP):
    """SMTP client that uses TLS from the first byte."""


def _refusal(error: smtplib.SMTPException) -> DeliveryError:
    """Convert an error: 4xx is temporary, 5xx is not (RFC 5321, 4.2.1); a broken connection is temporary."""
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return DeliveryError("disconnected", temporary=True)
    if not isinstance(error, smtplib.SMTPResponseException):  # a required extension (AUTH) is not offered
        return DeliveryError("unsupported", temporary=False)
    code = error.smtp_code
    return DeliveryError(f"smtp-{code}" if code > 0 else "protocol", temporary=code < 500)

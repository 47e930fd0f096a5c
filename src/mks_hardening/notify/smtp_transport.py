"""The way to an SMTP server: verified TLS or this machine, one deadline for all of a delivery."""

from __future__ import annotations

import os
import smtplib
import ssl
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from mks_hardening._core import hostname
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening._core.loopback import is_loopback
from mks_hardening.exceptions import DeliveryError

if TYPE_CHECKING:
    from mks_hardening.protocols import OutgoingAlert

__all__ = ["Security", "SmtpTransport"]

Security = Literal["starttls", "tls", "plain"]

# Said in EHLO by a machine without a full name: servers refuse short ones, and a look-up may take long.
_NAMELESS: Final = "[127.0.0.1]"


class SmtpTransport:
    """Delivers e-mails over one connection each.

    Args:
        host: name of the server, which its certificate must carry.
        port: port of the server.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain``.
        loopback_only: whether ``plain`` must not leave this machine.
        context: what to trust; unused for ``plain``.
        username: log in as, or ``None`` for not at all.
        password: password of that user.
        sender: envelope sender.
        recipients: envelope recipients.
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
        sender: str,
        recipients: Sequence[str],
        timeout: float,
    ) -> None:
        self._host = host
        self._port = port
        self._security: Security = security
        self._loopback_only = loopback_only
        self._context = context
        self._username = username
        self._password = password or ""
        self._sender = sender
        self._recipients = tuple(recipients)
        self._timeout = timeout
        self._name = _full_name(os.uname().nodename)
        self._left: tuple[str, tuple[str, ...]] = ("", ())

    def send(self, message: OutgoingAlert, /) -> None:
        """Deliver the message.

        Raises:
            DeliveryError: not delivered, or not to all recipients.
        """
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._timeout
        try:
            with self._connected() as server:
                self._deliver(server, message)
        except DeliveryError:
            raise
        except smtplib.SMTPException as error:
            raise _refusal(error) from None
        except ssl.SSLError as error:
            raise DeliveryError(
                "tls", temporary=not isinstance(error, ssl.SSLCertVerificationError)
            ) from None
        except OSError as error:
            reason = "timeout" if isinstance(error, TimeoutError) else "refused"
            raise DeliveryError(reason, temporary=True) from None
        finally:
            call_deadline.at = None

    def close(self) -> None:
        """Nothing stays open between deliveries."""

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
        server = _Client(self._host, self._port, local_hostname=self._name, timeout=self._timeout)
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
            # Perhaps somebody on the way took the offer out; the alert waits on disk rather than travel in clear.
            raise DeliveryError("starttls-not-offered", temporary=False)
        server.starttls(context=self._context)

    def _deliver(self, server: smtplib.SMTP, message: OutgoingAlert) -> None:
        if self._username is not None:
            server.login(self._username, self._password)
        wanted = self._left[1] if self._left[0] == message.id else self._recipients
        refused = server.sendmail(self._sender, wanted, message.body)
        later = tuple(address for address, (code, _) in refused.items() if 400 <= code < 500)
        if later:
            # The others have it; the next try must not give them a second copy.
            self._left = (message.id, later)
            raise DeliveryError("some-recipients-deferred", temporary=True)
        self._left = ("", ())


def _full_name(node: str) -> str:
    return node if "." in node and hostname.parse_host(node) else _NAMELESS


def _leads_to_loopback(server: smtplib.SMTP) -> bool:
    """Whether the name meant this machine when it was looked up."""
    return server.sock is not None and is_loopback(server.sock.getpeername()[0])


class _Client(smtplib.SMTP):
    """Reads replies before the deadline, however slowly they trickle."""

    file: Any

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = DeadlineSocket(self.sock).makefile()
        return super().getreply()


class _TlsClient(_Client, smtplib.SMTP_SSL):
    """The same over TLS from the first byte."""


def _refusal(error: smtplib.SMTPException) -> DeliveryError:
    """4xx may pass, 5xx will not (RFC 5321, 4.2.1); a broken connection may pass as well."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
    elif isinstance(error, smtplib.SMTPResponseException):
        codes = [error.smtp_code]
    elif isinstance(error, smtplib.SMTPServerDisconnected):
        return DeliveryError("disconnected", temporary=True)
    else:  # a needed extension (AUTH) is not offered
        return DeliveryError("unsupported", temporary=False)
    code = min(codes, default=-1)
    return DeliveryError(f"smtp-{code}" if code > 0 else "protocol", temporary=code < 500)

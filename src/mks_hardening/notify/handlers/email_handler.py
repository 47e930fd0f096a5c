"""Logging handler that sends alerts by e-mail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.handlers.notification_handler import HandlerOptions, NotificationHandler
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._translations import Language

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening._core.mail.smtp_session import Security
    from mks_hardening.protocols import Transport

__all__ = ["EmailNotificationHandler"]


class EmailNotificationHandler(NotificationHandler):
    """Send alerts over SMTP.

    Args:
        smtp_host: host name of the server, as in its certificate.
        smtp_port: 587 for ``starttls``, usually 465 for ``tls``.
        from_addr: sender, ``ops@example.com`` or ``Operations <ops@example.com>``.
        to_addrs: recipients; one string may contain several, separated by commas.
        username: user name for authentication; None means no authentication.
        password: password of that user.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain`` (only for a server on this machine).
        ssl_context: TLS context, instead of one with the system's certificates.
        ca_file: trusted certificates, instead of the system's.
        timeout: seconds for one delivery, from connecting to the last reply.
        subject_prefix: prefix of each subject, followed by the environment.
        level: minimum level of records that become alerts.
        policy: deduplication, retries, rate and queue size.
        spool: folder for undeliverable alerts.
        spool_name: name of this destination in the spool: alerts spooled under it are sent to the current address
            of the handler. Without a name, alerts are only sent to the address that they were meant for.
        allow_plaintext: whether ``plain`` may be used with another machine.
        lang: ``en`` or ``ja``.
        environment: included in each alert and its subject, for example ``production``; ``None`` reads ``MKS_ENV``.
        redactor: redactor of secrets; the default one if ``None``.
        transport: used instead of SMTP, for tests.
        clock: wall and monotonic clock.

    Raises:
        ConfigurationError: there are no recipients, an address is malformed, plaintext to another machine, a user
            without a password, or another invalid value.
    """

    def __init__(
        self,
        smtp_host: str,
        *,
        smtp_port: int = 587,
        from_addr: str,
        to_addrs: str | Sequence[str],
        username: str | None = None,
        password: str | None = None,
        security: Security = "starttls",
        ssl_context: SSLContext | None = None,
        ca_file: str | None = None,
        timeout: float | timedelta = 10,
        subject_prefix: str = "[MKS]",
        allow_plaintext: bool = False,
        lang: Language = "en",
        transport: Transport | None = None,
        **options: Unpack[HandlerOptions],
    ) -> None:
        # Imported lazily: e-mail, TLS and SMTP load about a hundred modules.
        from mks_hardening._core.mail.email_addresses import addresses
        from mks_hardening._core.mail.smtp_server import smtp_session
        from mks_hardening.notify.layouts._email_layout import EmailLayout
        from mks_hardening.notify.transports._smtp_transport import SmtpTransport

        sender, *others = addresses(from_addr, parameter="from_addr")
        if others:
            raise ConfigurationError("from_addr must be one address", parameter="from_addr")
        recipients = addresses(to_addrs, parameter="to_addrs")
        session = smtp_session(
            smtp_host,
            smtp_port=smtp_port,
            username=username,
            password=password,
            security=security,
            ssl_context=ssl_context,
            ca_file=ca_file,
            timeout=timeout,
            allow_plaintext=allow_plaintext,
        )
        super().__init__(
            "email",
            render=EmailLayout(
                Layout(lang), sender=sender, recipients=recipients, subject_prefix=_line(subject_prefix)
            ),
            transport=transport
            if transport is not None
            else SmtpTransport(
                session,
                sender=sender.addr_spec,
                recipients=[address.addr_spec for address in recipients],
            ),
            # By recipients in any order, not by server: spooled alerts remain valid when the mail server changes.
            destination=",".join(sorted(address.addr_spec for address in recipients)),
            **options,
        )


def _line(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix.isprintable() or len(prefix) > 60:
        raise ConfigurationError(
            "subject_prefix must be a printable line of at most 60 characters", parameter="subject_prefix"
        )
    return prefix

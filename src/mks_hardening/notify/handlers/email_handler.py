"""Alerts by e-mail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.handlers.notification_handler import NotificationHandler
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._translations import Language
from mks_hardening.notify.policy import AlertPolicy

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening._core.mail.smtp_session import Security
    from mks_hardening.protocols import Clock, Redactor, Transport

__all__ = ["EmailNotificationHandler"]


class EmailNotificationHandler(NotificationHandler):
    """Sends alerts over SMTP.

    Args:
        smtp_host: name of the server, which its certificate must carry.
        smtp_port: 587 for ``starttls``, 465 as a rule for ``tls``.
        from_addr: sender, ``ops@example.com`` or ``Operations <ops@example.com>``.
        to_addrs: recipients; one text may hold several, separated by commas.
        username: log in as; without it there is no log-in.
        password: password of that user.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain`` (a server on this machine only).
        ssl_context: what to trust, instead of the system's certificates.
        ca_file: certificates to trust, instead of the system's.
        timeout: seconds for one delivery, from connecting to the last reply.
        subject_prefix: beginning of each subject; the environment follows it.
        level: least level of records that become alerts.
        policy: when, how often, how much.
        spool: folder for what cannot be delivered.
        spool_name: name of this destination in the spool: alerts that wait under it go to the address that the
            handler has now. Without a name they wait for the address that they were meant for.
        allow_plaintext: whether ``plain`` may leave this machine.
        lang: ``en`` or ``ja``.
        environment: shown in each alert and its subject, for example ``production``; ``MKS_ENV`` when ``None``.
        redactor: takes secrets out; the default one when ``None``.
        transport: delivers instead of SMTP, for tests.
        clock: wall and monotonic time.

    Raises:
        ConfigurationError: no recipients, a malformed address, clear text to another machine, a user without a
            password, or another unusable value.
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
        level: int | str = "ERROR",
        policy: AlertPolicy = AlertPolicy(),  # noqa: B008 - immutable
        spool: str | os.PathLike[str] | None = None,
        spool_name: str | None = None,
        allow_plaintext: bool = False,
        lang: Language = "en",
        environment: str | None = None,
        redactor: Redactor | None = None,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # Not needed by those who only import the area: e-mail, TLS and SMTP are a hundred modules.
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
            level=level,
            policy=policy,
            spool=spool,
            spool_name=spool_name,
            # By recipients in any order, not by server: the same people get it after the mail server has moved.
            destination=",".join(sorted(address.addr_spec for address in recipients)),
            environment=environment,
            redactor=redactor,
            clock=clock,
        )


def _line(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix.isprintable() or len(prefix) > 60:
        raise ConfigurationError(
            "subject_prefix must be a printable line of at most 60 characters", parameter="subject_prefix"
        )
    return prefix

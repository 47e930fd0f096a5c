"""Mail sent by a background task, after the transaction that enqueued it has been committed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import instance, offers
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening.exceptions import ConfigurationError, DeliveryError, TaskRefusedError
from mks_hardening.protocols import Clock
from mks_hardening.tasks.task_run import TaskRun

if TYPE_CHECKING:
    from email.headerregistry import Address
    from ssl import SSLContext

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from mks_hardening._core.mail.smtp_session import Security, SmtpSession
    from mks_hardening.settings import HardeningSettings
    from mks_hardening.tasks.tasks import Task, Tasks

__all__ = ["MailTask"]

_DEFERRED_DELAY: Final = 60.0
"""Seconds until recipients that were deferred are retried if others were accepted (RFC 5321, 4.5.4.1 asks for 30
minutes between two attempts at a host that failed; this host responded)."""
_VERBATIM: Final = ("List-Unsubscribe", "List-Unsubscribe-Post")
_HTTPS_URL: Final = re.compile(r"https://[!-;=?-~]{1,900}")
"""Printable ASCII without blanks and angle brackets, in one header line of at most 998 characters."""
_logger: Final = logging.getLogger("mks_hardening.tasks")


class MailTask:
    """Task that sends mail over SMTP: ``mail.enqueue(connection, to="a@example.com", subject=..., text=...)``.

    A mail is never lost. If a worker is killed or stalls between the server's reply and recording it, at most one
    duplicate is sent each time, with the same ``Message-ID``: SMTP offers no way to check. The lease is checked
    right before the message itself is transmitted. Connection errors and 4xx replies are retried with increasing
    delays; 5xx replies move the task to the dead tasks (RFC 5321, 4.2.1). If only some recipients are deferred,
    they are retried separately, so that the others get one copy.

    Text and recipients are stored in the task table until the task has ended and is deleted by the cleanup.

    Args:
        tasks: ``Tasks`` in which the task is registered.
        smtp_host: host name of the server, as in its certificate.
        from_addr: sender, ``system@example.com`` or ``System <system@example.com>``.
        smtp_port: 587 for ``starttls``, usually 465 for ``tls``.
        username: user name for authentication; None means no authentication.
        password: password of that user.
        security: ``starttls``, ``tls`` (from the first byte) or ``plain`` (only for a server on this machine).
        ssl_context: TLS context, instead of one with the system's certificates.
        ca_file: trusted certificates, instead of the system's.
        timeout: seconds for one delivery, from connecting to the last reply; keep it below the workers' lease.
        allow_plaintext: whether ``plain`` may be used with another machine.
        name: name of the task.
        queue: queue of the task; workers can serve selected queues.
        max_attempts: maximum number of attempts; the default takes about two hours.
        clock: wall clock for ``Date``.

    Raises:
        ConfigurationError: a malformed address, plaintext to another machine, a user without a password, or
            another invalid value.
    """

    def __init__(
        self,
        tasks: Tasks,
        smtp_host: str,
        *,
        from_addr: str,
        smtp_port: int = 587,
        username: str | None = None,
        password: str | None = None,
        security: Security = "starttls",
        ssl_context: SSLContext | None = None,
        ca_file: str | None = None,
        timeout: float | timedelta = 10.0,
        allow_plaintext: bool = False,
        name: str = "mks.mail",
        queue: str = "default",
        max_attempts: int = 30,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # Imported lazily: e-mail, TLS and SMTP load about a hundred modules.
        from mks_hardening._core.mail.email_addresses import addresses
        from mks_hardening._core.mail.smtp_server import smtp_session

        sender, *others = addresses(from_addr, parameter="from_addr")
        if others:
            raise ConfigurationError("from_addr must be one address", parameter="from_addr")
        self._sender: Address = sender
        self._session: SmtpSession = smtp_session(
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
        self._clock = given_clock(clock)
        offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._task: Task[[list[str], dict[str, str]], dict[str, int]] = tasks.task(
            name, queue=queue, max_attempts=max_attempts
        )(self._run)

    @classmethod
    def from_settings(cls, tasks: Tasks, settings: HardeningSettings, **options: Any) -> MailTask | None:
        """Create the task with the SMTP server of the alerts; ``None`` if the settings name no server.

        Args:
            tasks: ``Tasks`` in which the task is registered.
            settings: the SMTP server, and ``notify.alert_from`` as the sender.
            options: parameters of ``MailTask``; they override the settings.
        """
        notify = settings.notify
        if notify.smtp_host is None:
            return None
        server: dict[str, Any] = {
            "smtp_port": notify.smtp_port,
            "from_addr": notify.alert_from,
            "username": notify.smtp_user,
            "password": notify.smtp_password,
            "security": notify.smtp_security,
            "ca_file": notify.smtp_ca_file,
            "allow_plaintext": settings.core.allow_plaintext,
        }
        return cls(tasks, notify.smtp_host, **{**server, **options})

    def enqueue(
        self,
        connection: Connection | Session,
        /,
        *,
        to: str | Sequence[str],
        subject: str,
        text: str,
        html: str | None = None,
        reply_to: str | None = None,
        unsubscribe_url: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> str:
        """Send a mail when the caller's transaction is committed.

        Args:
            connection: a connection or ORM session with the transaction.
            to: recipients; all of them appear in the mail.
            subject: subject, one line.
            text: plain-text body.
            html: HTML alternative of the body.
            reply_to: address for replies, if not the sender.
            unsubscribe_url: ``https`` address that ends these mails when it receives a POST request with the form
                field ``List-Unsubscribe=One-Click``, without cookies or a sign-in (RFC 8058); so it identifies and
                authenticates the recipient. Mail programs offer it as a button. The server that signs with DKIM
                must cover ``List-Unsubscribe`` and ``List-Unsubscribe-Post``.
            key: idempotency key; of several mails with the same key only the first is sent.
            user_id: user who may query the status.

        Returns:
            The id of the task.

        Raises:
            TaskRefusedError: there is no recipient, an address is malformed, the subject contains a line break, the
                mail is larger than 64 kB, or ``unsubscribe_url`` is not an ``https`` URL of ASCII characters.
        """
        from mks_hardening._core.mail.email_addresses import addresses

        try:
            recipients = [str(address) for address in addresses(to, parameter="to")]
            fields = {
                "Subject": instance(subject, str, parameter="subject"),
                "To": ", ".join(recipients),
                **({} if reply_to is None else {"Reply-To": _one(reply_to)}),
                **({} if unsubscribe_url is None else _unsubscribing(unsubscribe_url)),
                # Set here, so that a second delivery is identical byte for byte and mail servers recognise the
                # duplicate.
                "Date": _date(self._clock.time()),
                "text": instance(text, str, parameter="text"),
                **({} if html is None else {"html": instance(html, str, parameter="html")}),
            }
            # Built and discarded: a header that cannot be encoded fails in the request, not in the worker.
            self._message(fields, "refused-here-rather-than-later")
        except ValueError as error:  # includes ConfigurationError
            raise TaskRefusedError(f"the mail cannot be sent: {error}") from None
        envelope = [address.addr_spec for address in addresses(to, parameter="to")]
        return self._task.using(key=key, user_id=user_id).enqueue(connection, envelope, fields)

    def _run(self, run: TaskRun, envelope: list[str], fields: dict[str, str]) -> dict[str, int]:
        # Retries for deferred recipients pass `fields` with the Message-ID of the first run, which is kept.
        fields = {"Message-ID": f"<{run.id}@{self._sender.domain}>", **fields}
        body = self._message(fields, run.id)
        # `before` is called right before the message is transmitted: the window for a duplicate is as small as SMTP
        # allows.
        refused = self._session.deliver(self._sender.addr_spec, envelope, body, before=run.check)
        deferred = [address for address, code in refused.items() if code < 500]
        lost = len(refused) - len(deferred)
        accepted = len(envelope) - len(refused)
        if not accepted and not (deferred and lost):
            code = min(refused.values())
            raise DeliveryError(f"smtp-{code}", temporary=code < 500)
        if lost:
            _logger.warning("a mail was refused for %d of %d recipients", lost, len(envelope))
        result = {"accepted": accepted, "refused": lost, "deferred": len(deferred)}
        if deferred:
            again = self._task.using(key=f"deferred {run.id}", delay=_DEFERRED_DELAY, user_id=run.user_id)
            # In the transaction that ends this task: a crash in between would send duplicates or forget these
            # recipients.
            with run.commit(result) as connection:
                again.enqueue(connection, deferred, fields)
        return result

    def _message(self, fields: dict[str, str], boundary: str) -> bytes:
        """Build the mail; every attempt yields the same bytes."""
        from email.message import EmailMessage
        from email.policy import SMTP

        mail = EmailMessage(SMTP)
        mail["From"] = self._sender
        for name, value in fields.items():
            if name not in {"text", "html", *_VERBATIM}:
                mail[name] = value
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: prevents vacation replies
        # base64, as servers may wrap or re-encode 8-bit lines, which breaks DKIM signatures.
        mail.set_content(fields["text"], cte="base64")
        if "html" in fields:
            mail.add_alternative(fields["html"], subtype="html", cte="base64")
            mail.set_boundary(f"=_{boundary}")
        # `email` would encode a long URL as words (RFC 2047), which no mail program reads in these headers.
        verbatim = "".join(f"{name}: {fields[name]}\r\n" for name in _VERBATIM if name in fields)
        return verbatim.encode("ascii") + mail.as_bytes()

    def __repr__(self) -> str:
        return f"MailTask({self._task.name!r}, from_addr={str(self._sender)!r})"


def _one(address: str) -> str:
    from mks_hardening._core.mail.email_addresses import addresses

    (found,) = addresses(address, parameter="reply_to")
    return str(found)


def _unsubscribing(url: str) -> dict[str, str]:
    """Return the headers of RFC 8058."""
    if not _HTTPS_URL.fullmatch(instance(url, str, parameter="unsubscribe_url")):
        raise ConfigurationError(
            "unsubscribe_url must be an https URL of at most 900 ASCII characters without blanks",
            parameter="unsubscribe_url",
        )
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def _date(moment: float) -> str:
    from email.utils import formatdate

    return formatdate(moment, localtime=True)

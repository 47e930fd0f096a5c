"""E-mail layout: text and HTML parts, a subject of at most 200 characters, no header injection."""

from __future__ import annotations

from collections.abc import Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from html import escape
from typing import Final

from mks_hardening.notify.engine._alert import Alert, AlertMessage, OutgoingMessage
from mks_hardening.notify.layouts._plain_text import Layout, one_line

__all__ = ["EmailLayout"]

_MAX_SUBJECT: Final = 200
_BRIEF: Final = 300
_CELL: Final = 'style="padding:2px 8px;text-align:left;vertical-align:top"'
_CODE: Final = 'style="background:#f4f4f4;padding:8px;white-space:pre-wrap;word-break:break-word"'


class EmailLayout:
    """Render outgoing messages as e-mails.

    Args:
        layout: texts in the language of the alerts.
        sender: address of the sender.
        recipients: addresses of the recipients.
        subject_prefix: prefix of each subject.
    """

    def __init__(
        self, layout: Layout, *, sender: Address, recipients: Sequence[Address], subject_prefix: str
    ) -> None:
        self._layout = layout
        self._sender = sender
        self._recipients = tuple(recipients)
        self._prefix = subject_prefix

    def __call__(self, message: OutgoingMessage) -> AlertMessage:
        """Render a message as e-mail; every call returns the same bytes."""
        first = message.alerts[0]
        text = self._layout.text(message.alerts)
        mail = EmailMessage(SMTP)
        mail["Subject"] = subject = self._subject(message.alerts)
        mail["From"] = self._sender
        mail["To"] = self._recipients
        mail["Date"] = formatdate(max(alert.created for alert in message.alerts), localtime=True)
        mail["Message-ID"] = f"<{message.id}@{self._sender.domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: prevents vacation replies
        mail["X-Alert-Fingerprint"] = first.fingerprint
        mail.set_content(text, cte="base64")
        mail.add_alternative(self._html(message.alerts), subtype="html", cte="base64")
        mail.set_boundary(f"=_{message.id}")
        return AlertMessage(message.id, subject, text, dict(mail.items()), mail.as_bytes())

    def _subject(self, alerts: Sequence[Alert]) -> str:
        environment = alerts[0].environment
        prefix = f"{self._prefix}[{environment}]" if environment else self._prefix
        return one_line(f"{prefix} {self._layout.headline(alerts)}", _MAX_SUBJECT)

    def _html(self, alerts: Sequence[Alert]) -> str:
        parts = "<hr>".join(self._one(alert, brief=len(alerts) > 1) for alert in alerts)
        return f"<!DOCTYPE html><html><body>{parts}</body></html>\n"

    def _one(self, alert: Alert, *, brief: bool) -> str:
        message = one_line(alert.message, _BRIEF) if brief else alert.message
        parts = [f"<pre {_CODE}>{escape(message)}</pre>"]
        if repeats := self._layout.repeats(alert):
            parts.append(f"<p><strong>{escape(repeats)}</strong></p>")
        parts.append(_table(self._layout.facts(alert)))
        if alert.fields and not brief:
            parts.append(f"<h4>{escape(self._layout.words.details)}</h4>{_table(list(alert.fields.items()))}")
        if alert.exception and not brief:
            parts.append(
                f"<h4>{escape(self._layout.words.exception)}</h4><pre {_CODE}>{escape(alert.exception)}</pre>"
            )
        return "\n".join(parts)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (
        f"<tr><th {_CELL}>{escape(label)}</th><td {_CELL}>{escape(value)}</td></tr>" for label, value in rows
    )
    return f"<table>{''.join(cells)}</table>"

"""Alerts by e-mail, Slack and webhook that are never lost and never flood: handlers, policy, spool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening.notify.email_handler import EmailNotificationHandler
    from mks_hardening.notify.handler import NotificationHandler
    from mks_hardening.notify.policy import AlertPolicy, AlertStats
    from mks_hardening.notify.slack_handler import SlackNotificationHandler
    from mks_hardening.notify.webhook_handler import WebhookNotificationHandler

__all__ = [
    "AlertPolicy",
    "AlertStats",
    "EmailNotificationHandler",
    "NotificationHandler",
    "SlackNotificationHandler",
    "WebhookNotificationHandler",
]

_HOME = {
    "AlertPolicy": "mks_hardening.notify.policy",
    "AlertStats": "mks_hardening.notify.policy",
    "EmailNotificationHandler": "mks_hardening.notify.email_handler",
    "NotificationHandler": "mks_hardening.notify.handler",
    "SlackNotificationHandler": "mks_hardening.notify.slack_handler",
    "WebhookNotificationHandler": "mks_hardening.notify.webhook_handler",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)

"""Alerts by e-mail, Slack and webhook, without losses or floods: handlers, policy, spool."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.notify.handlers.email_handler": ["EmailNotificationHandler"],
    "mks_hardening.notify.handlers.notification_handler": ["NotificationHandler"],
    "mks_hardening.notify.handlers.slack_handler": ["SlackNotificationHandler"],
    "mks_hardening.notify.handlers.webhook_handler": ["WebhookNotificationHandler"],
    "mks_hardening.notify.alert_policy": ["AlertPolicy"],
    "mks_hardening.notify.alert_stats": ["AlertStats"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)

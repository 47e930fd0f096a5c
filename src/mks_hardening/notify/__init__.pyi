# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.notify.alert_policy import AlertPolicy as AlertPolicy
from mks_hardening.notify.alert_stats import AlertStats as AlertStats
from mks_hardening.notify.handlers.email_handler import EmailNotificationHandler as EmailNotificationHandler
from mks_hardening.notify.handlers.notification_handler import NotificationHandler as NotificationHandler
from mks_hardening.notify.handlers.slack_handler import SlackNotificationHandler as SlackNotificationHandler
from mks_hardening.notify.handlers.webhook_handler import (
    WebhookNotificationHandler as WebhookNotificationHandler,
)

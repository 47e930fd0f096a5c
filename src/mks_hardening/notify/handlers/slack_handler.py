"""Logging handler that sends alerts to a Slack channel."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.notify.handlers.notification_handler import HandlerOptions, NotificationHandler
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._slack_layout import SlackLayout
from mks_hardening.notify.layouts._translations import Language
from mks_hardening.notify.transports._http_transport import HttpTransport

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Transport

__all__ = ["SlackNotificationHandler"]


class SlackNotificationHandler(NotificationHandler):
    """Post alerts to a Slack incoming webhook.

    Only a response with the body ``ok``, as Slack sends it, counts as delivered. For services that imitate Slack
    but respond differently, use ``WebhookNotificationHandler``.

    Args:
        webhook_url: URL of the webhook; a secret, never shown.
        channel: channel in the payload; only legacy webhooks support it.
        timeout: seconds for one delivery.
        level: minimum level of records that become alerts.
        policy: deduplication, retries, rate and queue size.
        spool: folder for undeliverable alerts.
        spool_name: name of this destination in the spool: alerts spooled under it are sent to the current address
            of the handler. Without a name, alerts are only sent to the address that they were meant for.
        ca_file: trusted certificates, instead of the system's.
        ssl_context: TLS context, instead of one with the system's certificates.
        allow_plaintext: whether ``http`` may be used with another machine.
        lang: ``en`` or ``ja``.
        environment: included in each alert, for example ``production``; ``None`` reads ``MKS_ENV``.
        redactor: redactor of secrets; the default one if ``None``.
        transport: used instead of HTTP, for tests.
        clock: wall and monotonic clock.

    Raises:
        ConfigurationError: the URL is neither https nor on this machine, or another value is invalid.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        webhook_url: str,
        *,
        channel: str | None = None,
        timeout: float | timedelta = 10,
        ca_file: str | None = None,
        ssl_context: SSLContext | None = None,
        allow_plaintext: bool = False,
        lang: Language = "en",
        transport: Transport | None = None,
        **options: Unpack[HandlerOptions],
    ) -> None:
        super().__init__(
            "slack",
            render=SlackLayout(Layout(lang), channel=channel),
            transport=transport
            if transport is not None
            else HttpTransport(
                webhook_url,
                parameter="webhook_url",
                timeout=timeout,
                ca_file=ca_file,
                ssl_context=ssl_context,
                allow_plaintext=allow_plaintext,
                # Proxies and login pages respond with 200 as well.
                confirmation=b"ok",
                clock=options.get("clock", SYSTEM_CLOCK),
            ),
            destination=webhook_url,
            **options,
        )

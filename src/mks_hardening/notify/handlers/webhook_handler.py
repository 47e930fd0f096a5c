"""Logging handler that sends signed alerts to a webhook of your own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.handlers.notification_handler import HandlerOptions, NotificationHandler
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._translations import Language
from mks_hardening.notify.layouts._webhook_layout import WebhookLayout
from mks_hardening.notify.transports._http_transport import HttpTransport

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Transport

__all__ = ["WebhookNotificationHandler"]

_MIN_SECRET = 16


class WebhookNotificationHandler(NotificationHandler):
    """Post alerts as JSON: ``{"version": 1, "id": ..., "summary": ..., "alerts": [...]}``.

    ``Idempotency-Key`` is the same for every attempt. With a ``secret``, each request contains ``X-MKS-Timestamp``,
    seconds since the epoch, and ``X-MKS-Signature``: ``v1=`` and the hexadecimal HMAC-SHA256 of ``v1:``, the
    timestamp, ``:`` and the raw body. Receivers compute the same value, compare in constant time, and reject old
    timestamps.

    Args:
        url: URL of the receiver; treated as a secret, never shown.
        secret: key of the signature, at least 16 bytes; without a key requests are not signed.
        timeout: seconds for one delivery.
        level: minimum level of records that become alerts.
        policy: deduplication, retries, rate and queue size.
        spool: folder for undeliverable alerts.
        spool_name: name of this destination in the spool: alerts spooled under it are sent to the current address
            of the handler. Without a name, alerts are only sent to the address that they were meant for.
        ca_file: trusted certificates, instead of the system's.
        ssl_context: TLS context, instead of one with the system's certificates.
        allow_plaintext: whether ``http`` may be used with another machine.
        lang: language of the summary line, ``en`` or ``ja``.
        environment: included in each alert, for example ``production``; ``None`` reads ``MKS_ENV``.
        redactor: redactor of secrets; the default one if ``None``.
        transport: used instead of HTTP, for tests.
        clock: wall and monotonic clock.

    Raises:
        ConfigurationError: the URL is neither https nor on this machine, the secret is too short, or another value
            is invalid.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes | None = None,
        timeout: float | timedelta = 10,
        ca_file: str | None = None,
        ssl_context: SSLContext | None = None,
        allow_plaintext: bool = False,
        lang: Language = "en",
        transport: Transport | None = None,
        **options: Unpack[HandlerOptions],
    ) -> None:
        super().__init__(
            "webhook",
            render=WebhookLayout(Layout(lang)),
            transport=transport
            if transport is not None
            else HttpTransport(
                url,
                parameter="url",
                timeout=timeout,
                secret=_key(secret),
                ca_file=ca_file,
                ssl_context=ssl_context,
                allow_plaintext=allow_plaintext,
                clock=options.get("clock", SYSTEM_CLOCK),
            ),
            destination=url,
            **options,
        )


def _key(secret: str | bytes | None) -> bytes | None:
    # surrogatepass, so that a key from undecodable bytes of the environment is rejected by its length, not by a
    # codec error.
    key = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
    if key is not None and (not isinstance(key, bytes) or len(key) < _MIN_SECRET):
        raise ConfigurationError(f"secret must have at least {_MIN_SECRET} bytes", parameter="secret")
    return key

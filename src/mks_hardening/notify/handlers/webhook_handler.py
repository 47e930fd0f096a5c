"""Alerts for a receiver of one's own, signed."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.handlers.notification_handler import NotificationHandler
from mks_hardening.notify.layouts._plain_text import Layout
from mks_hardening.notify.layouts._translations import Language
from mks_hardening.notify.layouts._webhook_layout import WebhookLayout
from mks_hardening.notify.policy import AlertPolicy
from mks_hardening.notify.transports._http_transport import HttpTransport

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Clock, Redactor, Transport

__all__ = ["WebhookNotificationHandler"]

_MIN_SECRET = 16


class WebhookNotificationHandler(NotificationHandler):
    """Posts alerts as JSON: ``{"version": 1, "id": ..., "summary": ..., "alerts": [...]}``.

    ``Idempotency-Key`` is the same for every try. With a ``secret`` each request carries ``X-MKS-Timestamp``,
    seconds since the epoch, and ``X-MKS-Signature``: ``v1=`` and the hexadecimal HMAC-SHA256 of ``v1:``, the time
    stamp, ``:`` and the raw body. Receivers compute the same, compare in constant time, and refuse old time stamps.

    Args:
        url: address of the receiver; treated as a secret, never shown.
        secret: key of the signature, at least 16 bytes; without one requests are not signed.
        timeout: seconds for one delivery.
        level: least level of records that become alerts.
        policy: when, how often, how much.
        spool: folder for what cannot be delivered.
        spool_name: name of this destination in the spool: alerts that wait under it go to the address that the
            handler has now. Without a name they wait for the address that they were meant for.
        ca_file: certificates to trust instead of the system's.
        ssl_context: a ready context instead.
        allow_plaintext: whether ``http`` may leave this machine.
        lang: language of the summary line, ``en`` or ``ja``.
        environment: part of each alert, for example ``production``; ``MKS_ENV`` when ``None``.
        redactor: takes secrets out; the default one when ``None``.
        transport: delivers instead of HTTP, for tests.
        clock: wall and monotonic time.

    Raises:
        ConfigurationError: a URL that is neither https nor on this machine, a short secret, or another unusable
            value.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes | None = None,
        timeout: float | timedelta = 10,
        level: int | str = "ERROR",
        policy: AlertPolicy = AlertPolicy(),  # noqa: B008 - immutable
        spool: str | os.PathLike[str] | None = None,
        spool_name: str | None = None,
        ca_file: str | None = None,
        ssl_context: SSLContext | None = None,
        allow_plaintext: bool = False,
        lang: Language = "en",
        environment: str | None = None,
        redactor: Redactor | None = None,
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            "webhook",
            render=WebhookLayout(Layout(lang)),
            transport=transport
            if transport is not None
            else HttpTransport(
                url,
                parameter="url",
                timeout=seconds(timeout, parameter="timeout", allow_zero=False),
                secret=_key(secret),
                ca_file=ca_file,
                ssl_context=ssl_context,
                allow_plaintext=allow_plaintext,
                clock=clock,
            ),
            level=level,
            policy=policy,
            spool=spool,
            spool_name=spool_name,
            destination=url,
            environment=environment,
            redactor=redactor,
            clock=clock,
        )


def _key(secret: str | bytes | None) -> bytes | None:
    # surrogatepass, so that a key read from odd bytes of the environment is refused by its length, not by a
    # codec.
    key = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
    if key is not None and (not isinstance(key, bytes) or len(key) < _MIN_SECRET):
        raise ConfigurationError(f"secret must have at least {_MIN_SECRET} bytes", parameter="secret")
    return key

"""HTTP transport: one POST per message, and the meaning of its response: whether and when to retry it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.http_session import HttpSession, check_url
from mks_hardening._core.backend.network_errors import PERMANENT_REASONS
from mks_hardening._core.checks import boolean, instance, path_text
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import BackendUnavailableError, DeliveryError

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Clock, OutgoingAlert

__all__ = ["RETRY_AFTER_CAP", "HttpTransport", "retry_after_seconds", "signature"]

# Besides 5xx: the same request may succeed later (RFC 9110, 15.5.9; RFC 8470; RFC 6585).
_RETRYABLE: Final = frozenset({408, 425, 429})
# A destination may request a pause, but not an unlimited one.
RETRY_AFTER_CAP: Final = 300.0


class HttpTransport:
    """Post alerts to one URL, which is treated as a secret.

    Args:
        url: https, or http to this machine.
        parameter: name of the URL's parameter in error messages.
        timeout: seconds for one delivery.
        secret: key for signing; see ``signature``.
        ca_file: trusted certificates, instead of the system's.
        ssl_context: TLS context, instead of one with the system's certificates.
        allow_plaintext: whether ``http`` may be used with another machine.
        confirmation: body that a 2xx response must have, or ``None`` if the status suffices.
        clock: wall clock for signatures and for dates in ``Retry-After``.

    Raises:
        ConfigurationError: the URL is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        parameter: str,
        timeout: float | timedelta,
        ca_file: str | None,
        ssl_context: SSLContext | None,
        allow_plaintext: bool,
        secret: bytes | None = None,
        confirmation: bytes | None = None,
        clock: Clock,
    ) -> None:
        limit = seconds(timeout, parameter="timeout", allow_zero=False)
        boolean(allow_plaintext, parameter="allow_plaintext")
        if ca_file is not None:
            path_text(ca_file, parameter="ca_file")
        if ssl_context is not None:
            from ssl import SSLContext

            instance(ssl_context, SSLContext, parameter="ssl_context")
        self._url = check_url(url, parameter=parameter, allow_plaintext=allow_plaintext)
        self._secret = secret
        self._confirmation = confirmation
        self._clock = clock
        self._session = HttpSession("webhook", timeout=limit, ca_file=ca_file, ssl_context=ssl_context)

    def send(self, message: OutgoingAlert, /) -> None:
        """Post the message.

        Raises:
            DeliveryError: there is no response, a response other than 2xx, or one without the confirmation.
        """
        try:
            response = self._session.post(
                self._url,
                data=message.body,
                headers=self._headers(message),
                status_suffices=self._confirmation is None,
            )
        except BackendUnavailableError as error:
            raise DeliveryError(
                error.reason, temporary=error.reason not in PERMANENT_REASONS, retry_after=error.retry_after
            ) from None
        status = response.status
        if not 200 <= status < 300:
            raise DeliveryError(
                f"http-{status}",
                temporary=status >= 500 or status in _RETRYABLE,
                retry_after=retry_after_seconds(response.headers.get("Retry-After"), now=self._clock.time()),
            )
        if self._confirmation is not None and response.body.strip() != self._confirmation:
            # An intermediary responded, such as a login page. Not retried, as the message may have been forwarded.
            raise DeliveryError("not-confirmed", temporary=False)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _headers(self, message: OutgoingAlert) -> Mapping[str, str]:
        if self._secret is None:
            return message.headers
        # Signed for each attempt: a receiver may reject old timestamps.
        stamp = str(int(self._clock.time()))
        signed = signature(self._secret, stamp, message.body)
        return {**message.headers, "X-MKS-Timestamp": stamp, "X-MKS-Signature": signed}


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return ``v1=`` and the HMAC-SHA256, in hexadecimal, of ``v1:<stamp>:<body>``.

    Receivers compute the same value from ``X-MKS-Timestamp`` and the raw body, compare in constant time, and reject
    timestamps (seconds since the epoch) that are more than a few minutes old.
    """
    return "v1=" + hmac.digest(secret, b"v1:" + stamp.encode() + b":" + body, "sha256").hex()


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """Return the pause that a ``Retry-After`` field requests, at most 300 s; ``None`` if it is invalid.

    Args:
        value: delay in seconds or an HTTP date.
        now: wall time in seconds since the epoch.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Nine digits are 31 years; int() of a field with a million digits would take minutes.
        return min(float(text[:9]), RETRY_AFTER_CAP)
    moment = _http_date(text)
    return None if moment is None else min(max(0.0, moment - now), RETRY_AFTER_CAP)


def _http_date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""HTTP transport: one POST per message, and the meaning of its response."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mks_hardening._core.backend.http_session import HttpSession, check_url
from mks_hardening._core.backend.network_errors import PERMANENT_REASONS
from mks_hardening._core.checks import boolean, instance, path_text
from mks_hardening.exceptions import BackendUnavailableError, DeliveryError
from mks_hardening.notify.transports._http_retries import is_retryable_status, retry_after_seconds

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Clock, OutgoingAlert

__all__ = ["HttpTransport", "signature"]


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
        timeout: float,
        secret: bytes | None,
        ca_file: str | None,
        ssl_context: SSLContext | None,
        allow_plaintext: bool,
        confirmation: bytes | None = None,
        clock: Clock,
    ) -> None:
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
        self._session = HttpSession("webhook", timeout=timeout, ca_file=ca_file, ssl_context=ssl_context)

    def send(self, message: OutgoingAlert, /) -> None:
        """Post the message.

        Raises:
            DeliveryError: there is no response, a response other than 2xx, or one without the confirmation.
        """
        try:
            answer = self._session.post(
                self._url,
                data=message.body,
                headers=self._headers(message),
                status_suffices=self._confirmation is None,
            )
        except BackendUnavailableError as error:
            raise DeliveryError(
                error.reason, temporary=error.reason not in PERMANENT_REASONS, retry_after=error.retry_after
            ) from None
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status, answer.headers)
        if self._confirmation is not None and answer.body.strip() != self._confirmation:
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

    def _refusal(self, status: int, headers: Mapping[str, str]) -> DeliveryError:
        pause = retry_after_seconds(headers.get("Retry-After"), now=self._clock.time())
        return DeliveryError(f"http-{status}", temporary=is_retryable_status(status), retry_after=pause)


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return ``v1=`` and the HMAC-SHA256, in hexadecimal, of ``v1:<stamp>:<body>``.

    Receivers compute the same value from ``X-MKS-Timestamp`` and the raw body, compare in constant time, and reject
    timestamps (seconds since the epoch) that are more than a few minutes old.
    """
    return "v1=" + hmac.digest(secret, b"v1:" + stamp.encode() + b":" + body, "sha256").hex()

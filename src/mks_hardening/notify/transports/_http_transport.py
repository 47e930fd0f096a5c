"""The way to a webhook: one POST, and what its answer means."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mks_hardening._core.backend.http_session import HttpSession, check_url
from mks_hardening._core.backend.network_errors import LASTING
from mks_hardening._core.checks import flag, instance, path_text
from mks_hardening.exceptions import BackendUnavailableError, DeliveryError
from mks_hardening.notify.transports._http_retries import may_pass_later, retry_after_seconds

if TYPE_CHECKING:
    from ssl import SSLContext

    from mks_hardening.protocols import Clock, OutgoingAlert

__all__ = ["HttpTransport", "signature"]


class HttpTransport:
    """Posts alerts to one URL, which is treated as a secret.

    Args:
        url: https, or http to this machine.
        parameter: what errors call the URL.
        timeout: seconds.
        secret: key for signing; see ``signature``.
        ca_file: certificates to trust instead of the system's.
        ssl_context: a ready context instead.
        allow_plaintext: whether ``http`` may leave this machine.
        confirmation: body without which a 2xx answer does not count, or ``None`` when the status suffices.
        clock: wall clock for signatures and for dates in ``Retry-After``.

    Raises:
        ConfigurationError: a URL that may not be spoken to.
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
        flag(allow_plaintext, parameter="allow_plaintext")
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
            DeliveryError: no answer, an answer other than 2xx, or one without the confirmation.
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
                error.reason, temporary=error.reason not in LASTING, retry_after=error.retry_after
            ) from None
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status, answer.headers)
        if self._confirmation is not None and answer.body.strip() != self._confirmation:
            # Somebody on the way answered, a sign-in page perhaps. Not tried again: it may have been passed on.
            raise DeliveryError("not-confirmed", temporary=False)

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def _headers(self, message: OutgoingAlert) -> Mapping[str, str]:
        if self._secret is None:
            return message.headers
        # Signed anew for each try: a receiver may refuse old time stamps.
        stamp = str(int(self._clock.time()))
        signed = signature(self._secret, stamp, message.body)
        return {**message.headers, "X-MKS-Timestamp": stamp, "X-MKS-Signature": signed}

    def _refusal(self, status: int, headers: Mapping[str, str]) -> DeliveryError:
        pause = retry_after_seconds(headers.get("Retry-After"), now=self._clock.time())
        return DeliveryError(f"http-{status}", temporary=may_pass_later(status), retry_after=pause)


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """``v1=`` and the HMAC-SHA256, in hexadecimal, of ``v1:<stamp>:<body>``.

    Receivers compute the same from ``X-MKS-Timestamp`` and the raw body, compare in constant time, and refuse time
    stamps (seconds since the epoch) that are more than a few minutes old.
    """
    return "v1=" + hmac.digest(secret, b"v1:" + stamp.encode() + b":" + body, "sha256").hex()

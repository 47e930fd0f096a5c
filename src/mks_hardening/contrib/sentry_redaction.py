"""What goes to Sentry, without secrets.

import sentry_sdk
from mks_hardening.contrib.sentry_redaction import SentryRedaction

clean = SentryRedaction()
sentry_sdk.init(before_send=clean, before_send_transaction=clean, before_breadcrumb=clean)
"""

from __future__ import annotations

import logging
from typing import Any, Final, TypeAlias, cast

from mks_hardening._core.checks import offers
from mks_hardening._core.redaction.redactor import SecretRedactor, default_redactor
from mks_hardening.protocols import Redactor

__all__ = ["SentryRedaction"]

SentryEvent: TypeAlias = "dict[str, Any]"

_KEPT: Final = ("event_id", "timestamp", "level", "platform", "environment", "release", "type")
_logger: Final = logging.getLogger("mks_hardening.sentry")


class SentryRedaction:
    """Takes secrets out of events, transactions and breadcrumbs: of values, texts, URLs, and variables of frames.

    Sentry's own scrubber knows names alone, and does not look into what is nested. An event that cannot be cleaned
    is sent as an empty one that says so, never as it was.

    Args:
        redactor: takes the secrets out; the package's own when ``None``.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor: Redactor = (
            default_redactor()
            if redactor is None
            else offers(redactor, "redact", "redact_text", parameter="redactor", kind="a SecretRedactor")
        )

    def __call__(self, event: SentryEvent, _hint: object = None, /) -> SentryEvent:
        """The event as it may be sent; what was given stays as it is."""
        try:
            return self._cleaned(event)
        except Exception as error:  # noqa: BLE001 - what cannot be cleaned must not be sent
            _logger.warning("an event for Sentry could not be cleaned (%s)", type(error).__name__)
            # What Sentry needs to file it; none of it is text that a client or a frame could have put there.
            kept = {name: event[name] for name in _KEPT if isinstance(event.get(name), (str, float, int))}
            return {**kept, "message": f"an event that could not be cleaned ({type(error).__name__})"}

    def _cleaned(self, event: SentryEvent) -> SentryEvent:
        clean = cast("SentryEvent", self._redactor.redact(event))
        request = clean.get("request")
        given = event.get("request")
        if (
            isinstance(request, dict)
            and isinstance(given, dict)
            and isinstance(self._redactor, SecretRedactor)
        ):
            # These two are known to be what they are, which their text alone does not show.
            asked = cast("dict[str, Any]", given)
            if isinstance(query := asked.get("query_string"), str):
                request["query_string"] = self._redactor.redact_query(query)
            if isinstance(url := asked.get("url"), str):
                request["url"] = self._redactor.redact_url(url)
        return clean

"""Webhook layout: alerts as one JSON document for receivers of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mks_hardening._core.codec import json_dumps
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.notify.engine._outgoing_message import AlertMessage, OutgoingMessage
from mks_hardening.notify.layouts._plain_text import Layout

__all__ = ["WebhookLayout"]


class WebhookLayout:
    """Render outgoing messages as ``{"version": 1, "id": ..., "summary": ..., "alerts": [...]}``.

    Args:
        layout: texts of the summary line.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, parcel: OutgoingMessage) -> AlertMessage:
        """Render a message as JSON document."""
        headline = self._layout.headline(parcel.alerts)
        document = {
            "version": 1,
            "id": parcel.id,
            "summary": headline,
            "alerts": [_document(alert) for alert in parcel.alerts],
        }
        headers = {"Content-Type": "application/json", "Idempotency-Key": parcel.id}
        return AlertMessage(
            parcel.id, headline, self._layout.text(parcel.alerts), headers, json_dumps(document)
        )


def _document(alert: Alert) -> Mapping[str, Any]:
    return {**alert._asdict(), "fields": dict(alert.fields)}

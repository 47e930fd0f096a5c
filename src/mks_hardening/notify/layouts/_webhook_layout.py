"""Webhook layout: alerts as one JSON document for receivers of your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mks_hardening._core.codec import json_dumps
from mks_hardening.notify.engine._alert import Alert, AlertMessage, OutgoingMessage
from mks_hardening.notify.layouts._plain_text import Layout

__all__ = ["WebhookLayout"]


class WebhookLayout:
    """Render outgoing messages as ``{"version": 1, "id": ..., "summary": ..., "alerts": [...]}``.

    Args:
        layout: texts of the summary line.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, message: OutgoingMessage) -> AlertMessage:
        """Render a message as JSON document."""
        headline = self._layout.headline(message.alerts)
        document = {
            "version": 1,
            "id": message.id,
            "summary": headline,
            "alerts": [_document(alert) for alert in message.alerts],
        }
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.id}
        return AlertMessage(
            message.id, headline, self._layout.text(message.alerts), headers, json_dumps(document)
        )


def _document(alert: Alert) -> Mapping[str, Any]:
    return {**alert._asdict(), "fields": dict(alert.fields)}

"""Slack layout: within the limits of Block Kit after escaping, without text that Slack would interpret."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from mks_hardening._core.checks import text_of
from mks_hardening.notify.engine._alert import Alert, AlertMessage, OutgoingMessage
from mks_hardening.notify.layouts._plain_text import Layout, one_line

__all__ = ["SlackLayout", "escaped"]

Block = dict[str, Any]

_MAX_SECTION: Final = 3000
_MAX_HEADER: Final = 150
_MAX_FIELD: Final = 2000
_MAX_FIELDS: Final = 10
_MAX_BLOCKS: Final = 50
# Slack rejects messages whose blocks contain more than about 13,200 characters in total.
_MAX_TOTAL: Final = 12_000
_FENCE: Final = "```"


class SlackLayout:
    """Render outgoing messages as webhook payloads.

    Args:
        layout: texts in the language of the alerts.
        channel: channel in the payload, if given; only legacy webhooks support it.
    """

    def __init__(self, layout: Layout, *, channel: str | None) -> None:
        self._layout = layout
        self._channel = None if channel is None else text_of(channel, parameter="channel")

    def __call__(self, message: OutgoingMessage) -> AlertMessage:
        """Render a message as payload."""
        headline = self._layout.headline(message.alerts)
        blocks = [_header(self._title(message.alerts))]
        several = len(message.alerts) > 1
        for alert in message.alerts:
            blocks += [self._brief(alert)] if several else self._whole(alert)
        payload: dict[str, Any] = {"text": escaped(headline, _MAX_SECTION), "blocks": _bounded(blocks)}
        if self._channel is not None:
            payload["channel"] = self._channel
        body = json.dumps(payload, ensure_ascii=True).encode()
        headers = {"Content-Type": "application/json; charset=utf-8"}
        return AlertMessage(message.id, headline, self._layout.text(message.alerts), headers, body)

    def _title(self, alerts: Sequence[Alert]) -> str:
        first = alerts[0]
        what = first.level if len(alerts) == 1 else self._layout.words.summary.format(number=len(alerts))
        return one_line(f"{what} [{first.environment}]" if first.environment else what, 100) or "-"

    def _whole(self, alert: Alert) -> list[Block]:
        blocks = [_section(_code(alert.message))]
        if repeats := self._layout.repeats(alert):
            blocks.append(_section(f"*{escaped(repeats, _MAX_SECTION - 2)}*"))
        blocks.append(_fields(self._layout.facts(alert)))
        if alert.exception:
            blocks.append(_section(_code(_ends(alert.exception))))
        if alert.fields:
            blocks.append(
                _section(_code("\n".join(f"{name}: {text}" for name, text in alert.fields.items())))
            )
        return blocks

    def _brief(self, alert: Alert) -> Block:
        facts = " | ".join(value for _, value in self._layout.facts(alert))
        lines = [f"{alert.level}: {one_line(alert.message, 120)}", self._layout.repeats(alert), facts]
        return _section(escaped("\n".join(line for line in lines if line), 230))


def escaped(text: str, limit: int) -> str:
    """Return text without mentions, links, entities or code fences, at most ``limit`` characters after escaping.

    Slack requires exactly three characters to be replaced; no entity is cut in half.
    """
    whole = text.replace(_FENCE, "'''").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(whole) <= limit:
        return whole
    cut = whole[: limit - 1]
    start = cut.rfind("&", max(0, len(cut) - 4))
    if start >= 0 and ";" not in cut[start:]:
        cut = cut[:start]
    return f"{cut}…"


def _code(text: str) -> str:
    """Return a code block that the text cannot end."""
    return f"{_FENCE}{escaped(text, _MAX_SECTION - 2 * len(_FENCE))}{_FENCE}"


def _ends(text: str) -> str:
    """Return start and end of a traceback; the end names the exception."""
    half = _MAX_SECTION // 2 - 200
    return text if len(text) <= 2 * half else f"{text[:half]}\n…\n{text[-half:]}"


def _header(text: str) -> Block:
    return {"type": "header", "text": {"type": "plain_text", "text": escaped(text, _MAX_HEADER)}}


def _section(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _fields(rows: Sequence[tuple[str, str]]) -> Block:
    texts = [f"*{escaped(label, 100)}*\n{escaped(value, 400)}" for label, value in rows[:_MAX_FIELDS]]
    return {"type": "section", "fields": [{"type": "mrkdwn", "text": text} for text in texts]}


def _bounded(blocks: list[Block]) -> list[Block]:
    """Return as many blocks from the start as Slack accepts."""
    accepted: list[Block] = []
    total = 0
    for block in blocks[:_MAX_BLOCKS]:
        total += len(json.dumps(block, ensure_ascii=False))
        if total > _MAX_TOTAL:
            break
        accepted.append(block)
    return accepted

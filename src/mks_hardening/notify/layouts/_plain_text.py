"""Plain text of alerts, shared by all layouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from mks_hardening._core.checks import choice
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.notify.layouts._translations import WORDS, Language, Translations

__all__ = ["Layout", "one_line", "when"]

_HEADLINE: Final = 300


class Layout:
    """Texts of alerts in one language.

    Args:
        language: ``en`` or ``ja``.

    Raises:
        ConfigurationError: the language is not supported.
    """

    def __init__(self, language: Language) -> None:
        self.words: Translations = WORDS[choice(language, WORDS, parameter="lang")]

    def headline(self, alerts: Sequence[Alert]) -> str:
        """Return a one-line summary."""
        first = alerts[0]
        line = f"{first.level}: {one_line(first.message, _HEADLINE)}"
        if len(alerts) > 1:
            return f"{self.words.summary.format(number=len(alerts))}: {line}"
        return f"{line} (x{first.repeats})" if first.digest else line

    def facts(self, alert: Alert) -> list[tuple[str, str]]:
        """Return label and value of all short facts; unknown facts are omitted."""
        words = self.words
        rows = [
            (words.level, alert.level),
            (words.time, when(alert.created)),
            (words.environment, alert.environment),
            (words.host, alert.host),
            (words.logger, alert.logger),
            (words.place, alert.place),
            (words.request_id, alert.request_id),
            (words.occurrences, str(alert.repeats + alert.weight)),
        ]
        return [(label, value) for label, value in rows if value]

    def repeats(self, alert: Alert) -> str:
        """Return the sentence about suppressed repetitions, or an empty string."""
        if not alert.repeats:
            return ""
        sentence = self.words.repeated if alert.digest else self.words.repeated_before
        return sentence.format(number=alert.repeats, first=when(alert.since), last=when(alert.created))

    def text(self, alerts: Sequence[Alert]) -> str:
        """Return the complete plain text."""
        return "\n\n----------\n\n".join(self._text(alert, brief=len(alerts) > 1) for alert in alerts)

    def _text(self, alert: Alert, *, brief: bool) -> str:
        message = one_line(alert.message, _HEADLINE) if brief else alert.message
        parts = [message, self.repeats(alert), _rows(self.facts(alert))]
        if not brief:
            parts += [_rows(alert.fields.items()), alert.exception]
        return "\n\n".join(part for part in parts if part)


def one_line(text: str, limit: int) -> str:
    """Return the text without line breaks, truncated to ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def when(moment: float) -> str:
    """Return a wall time in the time zone of this machine, with the UTC offset."""
    try:
        # With the offset: reader and server may be in different time zones.
        local = datetime.fromtimestamp(moment, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return str(moment)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%z}"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{label}: {value}" for label, value in rows)

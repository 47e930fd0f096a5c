"""Texts of alerts in Japanese and English."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["WORDS", "Language", "Translations"]

Language = Literal["en", "ja"]


class Translations(NamedTuple):
    """Labels of facts, and sentences with placeholders for numbers and times."""

    level: str
    time: str
    environment: str
    host: str
    logger: str
    place: str
    request_id: str
    occurrences: str
    exception: str
    details: str
    repeated: str
    repeated_before: str
    summary: str


_ENGLISH: Final = Translations(
    level="Level",
    time="Time",
    environment="Environment",
    host="Host",
    logger="Logger",
    place="Place",
    request_id="Request ID",
    occurrences="Count",
    exception="Exception",
    details="Details",
    repeated="{number} more like this from {first} to {last}",
    repeated_before="{number} more like this were suppressed before",
    summary="{number} alerts",
)
_JAPANESE: Final = Translations(
    level="レベル",
    time="発生時刻",
    environment="環境",
    host="ホスト",
    logger="ロガー",
    place="発生箇所",
    request_id="リクエストID",
    occurrences="件数",
    exception="例外",
    details="詳細",
    repeated="同じ内容のアラートを {first} から {last} までに {number} 件抑制しました",
    repeated_before="これより前に同じ内容のアラートを {number} 件抑制しました",
    summary="アラート {number} 件",
)
WORDS: Final[dict[Language, Translations]] = {"en": _ENGLISH, "ja": _JAPANESE}

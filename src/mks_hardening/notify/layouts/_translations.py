"""Texts of alerts in Japanese and English."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

__all__ = ["WORDS", "Language", "Translations"]

Language = Literal["en", "ja"]


class Translations(NamedTuple):
    """Labels of facts, and sentences with placeholders for numbers and times; English by default."""

    level: str = "Level"
    time: str = "Time"
    environment: str = "Environment"
    host: str = "Host"
    logger: str = "Logger"
    place: str = "Place"
    request_id: str = "Request ID"
    occurrences: str = "Count"
    exception: str = "Exception"
    details: str = "Details"
    repeated: str = "{number} more like this from {first} to {last}"
    repeated_before: str = "{number} more like this were suppressed before"
    summary: str = "{number} alerts"


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
WORDS: Final[dict[Language, Translations]] = {"en": Translations(), "ja": _JAPANESE}

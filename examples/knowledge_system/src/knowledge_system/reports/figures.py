"""The data of a report, as plain values."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from knowledge_system.domain import translations


class CategoryRow(NamedTuple):
    """One category: number of articles, and activity in the period."""

    category: str
    published: int
    created: int
    edits: int
    comments: int


class ListedArticle(NamedTuple):
    """One article of the list."""

    title: str
    category: str
    author: str
    department: str
    updated_at: datetime
    comments: int


class Figures(NamedTuple):
    """A whole report.

    Attributes:
        title: title, for example ``月次ナレッジレポート 2025年11月``.
        scope: month or site in words.
        made_at: when the figures were read, in Japanese time.
        rows: one row per category that is not empty.
        articles: articles covered, newest first.
        language: language of the report.
    """

    title: str
    scope: str
    made_at: datetime
    rows: tuple[CategoryRow, ...]
    articles: tuple[ListedArticle, ...]
    language: str = "ja"

    def say(self, text: str, **values: object) -> str:
        """Return a text of the catalogue, or a name, in the language of the report."""
        return translations.say(text, self.language, **values)

    def day(self, moment: datetime) -> str:
        """Format a date in the language of the report."""
        return translations.written(moment, "day", self.language)

    @property
    def origin(self) -> str:
        """Scope and creation time, in one line."""
        moment = translations.written(self.made_at, "minute", self.language)
        return f"{self.scope}  {self.say('作成 %(moment)s (日本時間)', moment=moment)}"

    @property
    def totals(self) -> CategoryRow:
        """The sum of all categories."""
        sums = [sum(values) for values in zip(*(row[1:] for row in self.rows), strict=True)] or [0, 0, 0, 0]
        return CategoryRow("合計", *sums)

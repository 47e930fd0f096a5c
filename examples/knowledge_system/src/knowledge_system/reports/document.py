"""A report as PDF (A4), with its Japanese font embedded so that it looks the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from importlib.resources import as_file, files
from io import BytesIO
from typing import Any

from knowledge_system.domain.translations import is_japanese
from knowledge_system.reports.figures import Figures

Progress = Callable[[float, str], None]

_FONT = "BIZUDPGothic"
_MISSING = "〓"
"""Replacement for a character that the font lacks (geta mark, the convention of Japanese typesetting)."""
_BRAND, _ACCENT, _SOFT, _LINE, _GROUND = "#12303B", "#0E6577", "#55656B", "#DCE2E0", "#F3F5F3"
_MARGIN = 48


def write_document(figures: Figures, *, progress: Progress = lambda _share, _stage: None) -> bytes:
    """Return the PDF.

    Args:
        figures: content of the report.
        progress: progress callback with the completed share (0 to 1) and the current stage.
    """
    from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]  # ships no types
    from reportlab.platypus import SimpleDocTemplate, Spacer  # type: ignore[import-untyped]

    font = _font()
    page = _Page(figures, font)
    file = BytesIO()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN + 8,
        bottomMargin=_MARGIN,
        title=figures.title,
        author=figures.say("建設土木ナレッジシステム"),
        lang=figures.language,
    )
    progress(0.1, "本文を組んでいます")
    parts = [
        page.text(figures.title, size=18, color=_BRAND),
        page.text(figures.origin, size=9, color=_SOFT),
        Spacer(0, 12),
        page.tiles(),
        Spacer(0, 16),
        page.text(figures.say("分類ごとの件数"), size=12, color=_BRAND),
        Spacer(0, 4),
        page.categories(),
        Spacer(0, 16),
        page.text(figures.say("記事 %(count)s 件", count=len(figures.articles)), size=12, color=_BRAND),
        Spacer(0, 4),
        page.articles(),
    ]
    progress(0.4, "ページに割り付けています")
    document.build(parts, canvasmaker=_numbered(figures))
    return file.getvalue()


class _Page:
    """Paragraphs and tables in one style."""

    def __init__(self, figures: Figures, known: frozenset[int]) -> None:
        self._figures = figures
        self._known = known

    def text(self, said: str, *, size: float = 9, color: str = "#1C2B31", right: bool = False) -> Any:
        from reportlab.lib.colors import HexColor  # type: ignore[import-untyped]
        from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]
        from reportlab.platypus import Paragraph

        style = ParagraphStyle(
            "text",
            fontName=_FONT,
            fontSize=size,
            leading=size * 1.45,
            textColor=HexColor(color),
            alignment=2 if right else 0,
            # The CJK rule breaks lines at any character, even within English words.
            wordWrap="CJK" if is_japanese(said) else None,
        )
        printable = "".join(char if ord(char) in self._known else _MISSING for char in said)
        return Paragraph(escape(printable), style)

    def tiles(self) -> Any:
        totals = self._figures.totals
        tiles = (
            ("公開中の記事", totals.published),
            ("新規の記事", totals.created),
            ("更新", totals.edits),
            ("コメント", totals.comments),
        )
        cells = [
            [
                self.text(self._figures.say(label), size=8.5, color=_SOFT),
                self.text(f"{value:,}", size=18, color=_ACCENT),
            ]
            for label, value in tiles
        ]
        return _table([cells], [1, 1, 1, 1], [("BACKGROUND", (0, 0), (-1, -1), _GROUND)], grid=False)

    def categories(self) -> Any:
        rows, totals = self._figures.rows, self._figures.totals
        most = max((row.published for row in rows), default=1)
        head = [
            self.text(self._figures.say(name), color="#FFFFFF", right=place > 1)
            for place, name in enumerate(("分類", "", "公開中", "新規の記事", "更新", "コメント"))
        ]
        lines = [head]
        for row in (*rows, totals):
            bar = self.text("") if row is totals else _bar(row.published / max(1, most))
            numbers = [self.text(f"{value:,}", right=True) for value in row[1:]]
            lines.append([self.text(self._figures.say(row.category)), bar, *numbers])
        return _table(
            lines,
            [2.2, 2.9, 1.6, 1.6, 1.3, 1.6],
            [
                ("BACKGROUND", (0, 0), (-1, 0), _BRAND),
                ("BACKGROUND", (0, -1), (-1, -1), "#E4F0F1"),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ],
        )

    def articles(self) -> Any:
        names = ("記事", "分類", "執筆者", "部署", "更新日")
        head = [self.text(self._figures.say(name), color="#FFFFFF") for name in names]
        lines = [head]
        lines.extend(
            [
                self.text(article.title),
                self.text(self._figures.say(article.category)),
                self.text(article.author),
                self.text(article.department),
                self.text(self._figures.day(article.updated_at)),
            ]
            for article in self._figures.articles
        )
        return _table(lines, [4.6, 2.8, 1.7, 2.6, 2.4], [("BACKGROUND", (0, 0), (-1, 0), _BRAND)])


def _table(
    lines: list[list[Any]], shares: list[float], looks: list[tuple[Any, ...]], *, grid: bool = True
) -> Any:
    from reportlab.lib.colors import HexColor
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import Table

    width = A4[0] - 2 * _MARGIN
    table = Table(
        lines, colWidths=[width * share / sum(shares) for share in shares], repeatRows=1 if grid else 0
    )
    usual = [
        ("FONTNAME", (0, 0), (-1, -1), _FONT),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.5, HexColor(_LINE)),
    ]
    colored = [(*look[:-1], HexColor(look[-1])) if str(look[-1]).startswith("#") else look for look in looks]
    table.setStyle([*usual, *colored])
    return table


def _bar(share: float) -> Any:
    """Return a bar of a chart; not a reportlab drawing, which would use a font that is not embedded."""
    from reportlab.lib.colors import HexColor
    from reportlab.platypus import Flowable

    class Bar(Flowable):  # type: ignore[misc]  # as above
        def wrap(self, width: float, height: float) -> tuple[float, float]:
            del height
            self.width, self.height = max(1.5, width * share), 8
            return self.width, self.height

        def draw(self) -> None:
            self.canv.setFillColor(HexColor(_ACCENT))
            self.canv.rect(0, 0, self.width, self.height, stroke=0, fill=1)

    return Bar()


def _numbered(figures: Figures) -> Any:
    """Return a canvas class that prints the total number of pages on each page."""
    from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

    class Numbered(Canvas):  # type: ignore[misc]  # as above
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "initialFontName": _FONT})
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            number = len(self._pages)
            for page in self._pages:
                self.__dict__.update(page)
                self.setFont(_FONT, 8)
                self.setFillColor(_SOFT)
                brand = figures.say("建設土木ナレッジシステム")
                self.drawString(_MARGIN, 26, f"{brand}  {figures.day(figures.made_at)}")
                self.drawRightString(self._pagesize[0] - _MARGIN, 26, f"{self._pageNumber} / {number}")
                Canvas.showPage(self)
            Canvas.save(self)

    return Numbered


@cache
def _font() -> frozenset[int]:
    """Register the font once; return the characters it contains."""
    from reportlab.pdfbase.pdfmetrics import registerFont  # type: ignore[import-untyped]
    from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]

    folder = files("knowledge_system").joinpath("reports", "font")
    with as_file(folder.joinpath("BIZUDPGothic-Regular.ttf")) as file:
        font = TTFont(_FONT, str(file))
    registerFont(font)
    return frozenset(font.face.charToGlyph)

"""A report as XLSX, ready to print: a sheet of figures with a chart, and a sheet of articles."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from knowledge_system.reports.figures import Figures

Progress = Callable[[float, str], None]

_FONT = "Yu Gothic"
_HEAD = ("分類", "公開中の記事", "新規の記事", "更新", "コメント")
_LIST_HEAD = ("記事", "分類", "執筆者", "部署", "更新日", "コメント")
_LIST_WIDTHS = (58, 13, 14, 22, 13, 10)
_DATES = {"ja": "yyyy/mm/dd", "en": "d mmm yyyy"}
_BRAND = "#12303B"


def write_sheet(figures: Figures, *, progress: Progress = lambda _share, _stage: None) -> bytes:
    """Return the workbook.

    Args:
        figures: content of the report.
        progress: progress callback with the completed share (0 to 1) and the current stage.
    """
    from xlsxwriter import Workbook  # type: ignore[import-untyped]  # ships no types

    file = BytesIO()
    # A title that begins with = is not a formula, and a URL in it not a link.
    options = {
        "in_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "remove_timezone": True,
    }
    with Workbook(file, options) as book:
        book.formats[0].set_font_name(_FONT)
        book.set_properties({"title": figures.title, "author": figures.say("建設土木ナレッジシステム")})
        progress(0.1, "概要のシートを作成しています")
        _overview(book, figures)
        progress(0.5, "記事一覧のシートを作成しています")
        _articles(book, figures)
    return file.getvalue()


def _overview(book: Any, figures: Figures) -> None:
    title = figures.say("概要")
    sheet = book.add_worksheet(title)
    formats = _formats(book, figures.language)
    sheet.set_column(0, 0, 20)
    sheet.set_column(1, 4, 14)
    sheet.write_string(0, 0, figures.title, formats["title"])
    sheet.write_string(1, 0, figures.origin, formats["hint"])
    first = 3
    for column, name in enumerate(_HEAD):
        sheet.write_string(first, column, figures.say(name), formats["head"])
    for number, row in enumerate((*figures.rows, figures.totals), first + 1):
        is_total = number == first + 1 + len(figures.rows)
        sheet.write_string(number, 0, figures.say(row.category), formats["total" if is_total else "cell"])
        for column, value in enumerate(row[1:], 1):
            sheet.write_number(number, column, value, formats["total_number" if is_total else "number"])
    if figures.rows:
        chart = book.add_chart({"type": "bar"})
        last = first + len(figures.rows)
        chart.add_series(
            {
                "name": figures.say("公開中の記事"),
                "categories": [title, first + 1, 0, last, 0],
                "values": [title, first + 1, 1, last, 1],
                "fill": {"color": "#0E6577"},
                "gap": 40,
            }
        )
        caption = figures.say("分類ごとの公開中の記事")
        chart.set_title({"name": caption, "name_font": {"name": _FONT, "size": 11}})
        chart.set_legend({"none": True})
        chart.set_y_axis({"reverse": True})
        looks = {"x_scale": 1.35, "y_scale": 1.3, "description": caption}
        sheet.insert_chart(last + 3, 0, chart, looks)
    _for_print(sheet, figures, landscape=False)


def _articles(book: Any, figures: Figures) -> None:
    sheet = book.add_worksheet(figures.say("記事一覧"))
    formats = _formats(book, figures.language)
    for column, width in enumerate(_LIST_WIDTHS):
        sheet.set_column(column, column, width)
        sheet.write_string(0, column, figures.say(_LIST_HEAD[column]), formats["head"])
    for number, article in enumerate(figures.articles, 1):
        texts = (article.title, figures.say(article.category), article.author, article.department)
        for column, text in enumerate(texts):
            sheet.write_string(number, column, text, formats["wrapped" if column == 0 else "cell"])
        sheet.write_datetime(number, 4, article.updated_at, formats["date"])
        sheet.write_number(number, 5, article.comments, formats["number"])
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, max(1, len(figures.articles)), len(_LIST_HEAD) - 1)
    sheet.repeat_rows(0)
    _for_print(sheet, figures, landscape=True)


def _for_print(sheet: Any, figures: Figures, *, landscape: bool) -> None:
    sheet.set_paper(9)  # A4
    if landscape:
        sheet.set_landscape()
    sheet.fit_to_pages(1, 0)
    sheet.set_footer(f"&L{figures.scope.replace('&', '&&')}&R&P / &N")


def _formats(book: Any, language: str) -> dict[str, Any]:
    usual = {"font_name": _FONT, "valign": "top"}
    total = {**usual, "bold": True, "top": 1, "bg_color": "#E4F0F1"}
    return {
        "title": book.add_format({**usual, "bold": True, "font_size": 16, "font_color": _BRAND}),
        "hint": book.add_format({**usual, "font_color": "#55656B"}),
        "head": book.add_format({**usual, "bold": True, "font_color": "#FFFFFF", "bg_color": _BRAND}),
        "cell": book.add_format(usual),
        "wrapped": book.add_format({**usual, "text_wrap": True}),
        "number": book.add_format({**usual, "num_format": "#,##0"}),
        "date": book.add_format({**usual, "num_format": _DATES[language], "align": "left"}),
        "total": book.add_format(total),
        "total_number": book.add_format({**total, "num_format": "#,##0"}),
    }

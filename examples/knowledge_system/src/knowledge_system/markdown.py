"""A small, safe subset of Markdown: everything is escaped first, then a handful of tags is added.

Headings (``##``, ``###``), bullet and numbered lists, tables with ``|``, ``**bold**``, paragraphs. No links, no
images, no raw HTML, so that nothing a writer types can run in a reader's browser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import escape

from markupsafe import Markup

__all__ = ["headings", "render"]

_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_HEADING = re.compile(r"(#{2,3}) +(.+)")
_BULLET = re.compile(r"(?:[-*] +|・ *)(\S.*)")
_NUMBER = re.compile(r"\d{1,3}[.)] +(\S.*)")
_RULE_CELL = re.compile(r":?-{2,}:?")


def render(text: str) -> Markup:
    """HTML of a text in the subset; safe whatever the text holds."""
    blocks = _blocks(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return Markup("\n".join(blocks))  # noqa: S704 - built from escaped text only


def headings(text: str) -> list[tuple[str, str]]:
    """Anchor and text of the headings of the second level, in order, for a table of contents."""
    matches = (_HEADING.fullmatch(line.strip()) for line in text.splitlines())
    texts = [match[2].replace("**", "") for match in matches if match and len(match[1]) == 2]
    return [(_anchor(number), heading) for number, heading in enumerate(texts, 1)]


def _anchor(number: int) -> str:
    return f"s{number}"


def _inline(text: str) -> str:
    return _BOLD.sub(r"<strong>\1</strong>", escape(text.strip()))


def _blocks(lines: list[str]) -> Iterator[str]:
    position = section = 0
    while position < len(lines):
        kind, render_block = _kind(lines[position])
        end = position + 1
        if kind != "heading":
            while end < len(lines) and _kind(lines[end])[0] == kind:
                end += 1
        if kind == "heading" and not lines[position].strip().startswith("###"):
            section += 1
            yield render_block(lines[position:end]).replace("<h2>", f'<h2 id="{_anchor(section)}">', 1)
        elif kind != "blank":
            yield render_block(lines[position:end])
        position = end


def _kind(line: str) -> tuple[str, Callable[[list[str]], str]]:
    line = line.strip()
    if not line:
        return "blank", _paragraph
    if _HEADING.fullmatch(line):
        return "heading", _heading
    if line.startswith("|"):
        return "table", _table
    if _BULLET.fullmatch(line):
        return "bullets", lambda lines: _list("ul", _BULLET, lines)
    if _NUMBER.fullmatch(line):
        return "numbers", lambda lines: _list("ol", _NUMBER, lines)
    return "text", _paragraph


def _heading(lines: list[str]) -> str:
    match = _HEADING.fullmatch(lines[0].strip())
    level, text = (len(match[1]), match[2]) if match else (2, lines[0])
    return f"<h{level}>{_inline(text)}</h{level}>"


def _paragraph(lines: list[str]) -> str:
    return f"<p>{'<br>'.join(_inline(line) for line in lines)}</p>"


def _list(tag: str, pattern: re.Pattern[str], lines: list[str]) -> str:
    matches = (pattern.fullmatch(line.strip()) for line in lines)
    items = "".join(f"<li>{_inline(match[1])}</li>" for match in matches if match)
    return f"<{tag}>{items}</{tag}>"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    has_head = len(rows) > 1 and all(_RULE_CELL.fullmatch(cell) for cell in rows[1])
    head = _row("th", rows[0]) if has_head else ""
    body = "".join(_row("td", row) for row in (rows[2:] if has_head else rows))
    return f'<div class="table"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _row(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"

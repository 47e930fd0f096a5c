"""Markdown rendered to HTML that is safe for any input.

markdown-it-py parses CommonMark with tables, strikethrough, hard line breaks and check lists; nh3 then reduces the
result to known tags and attributes. HTML in the source is shown as text. Pictures are loaded from this site only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token
from markupsafe import Markup

from knowledge_system.domain.translations import say

if TYPE_CHECKING:
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline

_TAGS: Final = {
    *(
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "div",
        "em",
        "h2",
        "h3",
        "h4",
        "hr",
        "img",
        "input",
        "li",
        "ol",
        "p",
    ),
    *("pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_ATTRIBUTES: Final = {
    "a": {"href", "title", "class", "aria-label"},
    "div": {"class", "tabindex", "role", "aria-label"},
    "h2": {"id"},
    "h3": {"id"},
    "h4": {"id"},
    "img": {"src", "alt", "title", "loading"},
    "input": {"type", "checked", "disabled", "aria-label"},
    "li": {"class"},
    "ol": {"start"},
    "strong": {"class"},
    "td": {"class"},
    "th": {"class"},
}
# No path segment begins with a dot: browsers would resolve ``..`` to any page.
_OWN_PICTURE: Final = re.compile(r"/(?:files|static)(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+").fullmatch
_OWN_LINK: Final = re.compile(r"(?:/(?![/\\])|#)[^\\]*|https?://[^\s\\]+|mailto:[^\s\\]+").fullmatch
_BOX: Final = re.compile(r"\[([ xX])\] +")
_WIDE: Final = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_MOST_BRACKETS: Final = 1000
_DOTS: Final = re.compile(r"^・ *", re.MULTILINE)
_TABLE: Final = {"class": "table", "tabindex": "0", "role": "region"}
# Heading levels within the page, whose title is the first level.
_DEPTHS: Final = ("h2", "h3", "h4")
_LEVELS: Final = {"h1": "h2", "h5": "h4", "h6": "h4"}


MENTION: Final = re.compile(r"(?<![\w.@-])@([a-z][a-z0-9._-]{1,62}[a-z0-9])")
"""A user name that a comment mentions, not within an address."""
PLACE: Final = "\ue000"
"""Stands for the text in the frame of a block."""


class Rendered(NamedTuple):
    """Rendered HTML, and the headings for the table of contents."""

    html: Markup
    headings: list[tuple[str, str]]


class Block(NamedTuple):
    """A block of a rendered text: a paragraph, a heading, a list item, or a whole table, quotation or code block.

    Attributes:
        html: the block as readers see it.
        text: its text, if it is a single line without pictures; otherwise empty.
        frame: the block with ``PLACE`` for its text.
    """

    html: Markup
    text: str
    frame: Markup


def render(text: str, *, language: str = "ja") -> Markup:
    """Render a text to HTML, with the anchors that ``headings`` returns.

    Args:
        text: Markdown source.
        language: language of the labels for screen readers.
    """
    return rendered(text, language=language).html


def headings(text: str) -> list[tuple[str, str]]:
    """Return anchors and texts of the second-level headings, in order, for a table of contents."""
    return _headings(_parser(text).parse(_dashed(text)))


def rendered(text: str, *, language: str = "ja") -> Rendered:
    """Return the results of ``render`` and ``headings`` from a single parse, which is the most expensive part."""
    parser, env = _parser(text), {"language": language}
    tokens = parser.parse(_dashed(text), env)
    return Rendered(_clean(parser.renderer.render(tokens, parser.options, env)), _headings(tokens))


def comment(text: str, people: Mapping[str, str], *, language: str = "ja") -> Markup:
    """Render a comment: without headings, and with the display names of the people whom it mentions.

    Args:
        text: Markdown source.
        people: display names by user name; other names stay as they were written.
        language: language of the labels for screen readers.
    """
    parser = _made(links=text.count("[") <= _MOST_BRACKETS, headings=False)
    return _clean(parser.render(_dashed(text), {"language": language, "people": people}))


def _clean(html: str) -> Markup:
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_kept,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer",
    )
    return Markup(cleaned)  # noqa: S704 - only tags and attributes of the lists above


def blocks(text: str, *, language: str = "ja") -> Iterator[Block]:
    """Yield the blocks of a rendered text, without anchors; each item of a list is a list of its own.

    Args:
        text: Markdown source.
        language: language of the labels for screen readers.
    """
    parser, env = _parser(text), {"language": language, "anchors": False}

    def written(tokens: Sequence[Token]) -> Markup:
        return _clean(parser.renderer.render(tokens, parser.options, env))

    for group in _groups(parser.parse(_dashed(text), env)):
        html = written(group)
        line = _only_line(group)
        if line is None:
            yield Block(html, "", Markup(""))
            continue
        said, box = _plain(line), [child for child in line.children or [] if child.type == "html_inline"]
        line.children = [*box, Token("text", "", 0, content=PLACE)]
        yield Block(html, said, written(group))


def _groups(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the tokens of each block; those of a list item within the tags of its list."""
    group: list[Token] = []
    opened: Token | None = None
    number = depth = 0
    for token in tokens:
        if opened is None and not group and token.type in {"bullet_list_open", "ordered_list_open"}:
            opened, number = token, int(token.attrs.get("start", 1))
            continue
        if opened is not None and not group and token.nesting < 0:
            opened = None
            continue
        group.append(token)
        depth += token.nesting
        if token.type == "html_block" and token.content.startswith(("<div", "</div")):  # around a table
            depth += 1 if token.content.startswith("<div") else -1
        if depth:
            continue
        yield group if opened is None else _item(opened, number, group)
        group, number = [], number + 1


def _item(opened: Token, number: int, group: list[Token]) -> list[Token]:
    attributes: dict[str, str | int | float] = {"start": number} if opened.tag == "ol" else {}
    return [
        Token(opened.type, opened.tag, 1, attrs=attributes, block=True),
        *group,
        Token(opened.type.replace("open", "close"), opened.tag, -1, block=True),
    ]


def _only_line(group: Sequence[Token]) -> Token | None:
    """Return the only line of text of a block, unless it has a picture."""
    lines = [token for token in group if token.type == "inline"]
    if len(lines) != 1 or group[0].type == "html_block":
        return None
    kinds = {child.type for child in lines[0].children or []}
    return None if kinds & {"image", "softbreak", "hardbreak"} else lines[0]


def _headings(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    opened = [number for number, token in enumerate(tokens) if token.tag == "h2" and token.attrGet("id")]
    return [(str(tokens[number].attrGet("id")), _plain(tokens[number + 1])) for number in opened]


def _dashed(text: str) -> str:
    """Turn lines that begin with the Japanese bullet into list items."""
    return _DOTS.sub("- ", text)


def _parser(text: str) -> MarkdownIt:
    """Parsing link labels is quadratic in the number of brackets; beyond a limit, links are disabled."""
    return _made(links=text.count("[") <= _MOST_BRACKETS)


@cache
def _made(*, links: bool, headings: bool = True) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 40})
    parser.enable(["table", "strikethrough"])
    parser.inline.ruler.at("emphasis", _emphasis)
    if not links:
        parser.disable(["link", "image", "reference"])
    if not headings:
        parser.disable(["heading", "lheading"])
    parser.core.ruler.push("site", _adapt)
    return parser


def _emphasis(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - signature of markdown-it rules
    """Accept emphasis next to Japanese: ``**養生(保温)**は`` is bold; CommonMark requires a space after it."""
    marker = state.src[state.pos]
    if silent or marker not in "*_":
        return False
    found = state.scanDelims(state.pos, marker == "*")
    before = state.src[state.pos - 1 : state.pos]
    after = state.src[state.pos + found.length : state.pos + found.length + 1]
    loose = marker == "*" and bool(_WIDE.search(before + after))
    for _ in range(found.length):
        token = state.push("text", "", 0)
        token.content = marker
        state.delimiters.append(
            Delimiter(
                marker=ord(marker),
                length=found.length,
                token=len(state.tokens) - 1,
                end=-1,
                open=found.can_open or (loose and bool(after.strip())),
                close=found.can_close or (loose and bool(before.strip())),
            )
        )
    state.pos += found.length
    return True


def _adapt(state: StateCore) -> None:
    """Adjust heading levels and anchors, wrap tables in scrollable frames, render the boxes of check lists."""
    sections = [0, 0, 0]
    language = str(state.env.get("language", "ja"))
    link = say("この見出しへのリンク", language)
    frame = _attributes({**_TABLE, "aria-label": say("表", language)})
    adapted: list[Token] = []
    anchor, anchors = "", state.env.get("anchors", True)
    for number, token in enumerate(state.tokens):
        token.tag = _LEVELS.get(token.tag, token.tag)
        if token.type == "heading_open" and anchors:
            anchor = _next_anchor(sections, token.tag)
            token.attrSet("id", anchor)
        if token.type == "heading_close" and anchors:
            named = _attributes({"class": "anchor", "href": f"#{anchor}", "aria-label": link})
            adapted.append(Token("html_block", "", 0, content=f"<a {named}>#</a>"))
        if token.type == "table_open":
            adapted.append(Token("html_block", "", 0, content=f"<div {frame}>"))
        if token.type in {"th_open", "td_open"} and (style := str(token.attrs.pop("style", ""))):
            token.attrSet("class", style.replace("text-align:", "align-"))
        if token.type == "inline" and number >= 2 and state.tokens[number - 2].type == "list_item_open":
            _check_box(token, state.tokens[number - 2], language)
        if token.type == "inline":
            for child in token.children or []:
                if child.type == "image":
                    child.attrSet("loading", "lazy")
            if people := state.env.get("people"):
                token.children = [part for child in token.children or [] for part in _named(child, people)]
        adapted.append(token)
        if token.type == "table_close":
            adapted.append(Token("html_block", "", 0, content="</div>"))
    state.tokens = adapted


def _named(token: Token, people: Mapping[str, str]) -> Iterator[Token]:
    """Yield the parts of a text, with the display names of the people whom it mentions."""
    end = 0
    for found in MENTION.finditer(token.content) if token.type == "text" else ():
        if found[1] in people:
            yield Token("text", "", 0, content=token.content[end : found.start()])
            yield Token("strong_open", "strong", 1, attrs={"class": "mention"})
            yield Token("text", "", 0, content=f"@{people[found[1]]}")
            yield Token("strong_close", "strong", -1)
            end = found.end()
    yield dataclasses.replace(token, content=token.content[end:]) if end else token


def _next_anchor(sections: list[int], tag: str) -> str:
    """Count a heading, and return its anchor: ``s2``, ``s2-1``, ``s2-1-3`` by level."""
    depth = _DEPTHS.index(tag)
    sections[depth] += 1
    sections[depth + 1 :] = [0] * (2 - depth)
    return "s" + "-".join(map(str, sections[: depth + 1]))


def _check_box(inline: Token, item: Token, language: str) -> None:
    children = inline.children or []
    found = _BOX.match(children[0].content) if children and children[0].type == "text" else None
    if found is None:
        return
    children[0].content = children[0].content[found.end() :]
    checked = {"checked": ""} if found[1] != " " else {}
    said = say("済み" if checked else "未", language)
    names = {"type": "checkbox", "disabled": "", "aria-label": said, **checked}
    children.insert(0, Token("html_inline", "", 0, content=f"<input {_attributes(names)}> "))
    item.attrSet("class", "check")


def _attributes(values: dict[str, str]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in values.items())


def _kept(tag: str, name: str, value: str) -> str | None:
    """Filter attribute values: pictures of this site only, and links that cannot run a script."""
    if (tag, name) == ("img", "src"):
        return value if _OWN_PICTURE(value) else None
    if (tag, name) == ("a", "href"):
        return value if _OWN_LINK(value) else None
    return value


def _plain(inline: Token) -> str:
    return "".join(_texts(inline.children or []))


def _texts(tokens: Sequence[Any]) -> Iterator[str]:
    for token in tokens:
        if token.children:
            yield from _texts(token.children)
        elif token.type in {"text", "code_inline"}:
            yield token.content

"""Secrets in free text after a secret name: start and end of such a value.

Everything is linear in the length of the text. Patterns have bounded or possessive repeats; names are found by
their stems, and only a bounded window around them is examined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from mks_hardening._core.redaction.japanese_text import PARTICLES, folded, lowered, remark_end, sentence_value
from mks_hardening._core.redaction.labelled_text import beside_quoted_name, in_element_or_part
from mks_hardening._core.redaction.secret_names import STEMS, by_first_letter, normalise, reveals_secret
from mks_hardening._core.redaction.secret_patterns import HARMLESS_VALUES, HARMLESS_WORDS, HEADER_NAMES
from mks_hardening._core.redaction.step_limit import CUT, REDACTED, StepLimit
from mks_hardening._core.redaction.value_end import (
    ESCAPED_QUOTE,
    OPENERS,
    PLAIN_ASSIGNMENT,
    QUOTES,
    end_of_line,
    value_at,
)

__all__ = ["redact_named", "stem_pattern"]

_Span = tuple[int, int]

#: A Japanese name ends at a particle, or where a code of four or more digits follows without a space.
_WORD_AFTER: Final = (
    rf"(?:(?![{PARTICLES}]|(?<=[ァ-ヿｦ-ﾟ一-鿿])\d{{4}})[\w.-]){{0,64}}+(?:[ ](?:id|ids|number|no|string)\b)?+"
)
#: Characters before the stem that may belong to the name: ``one time`` of ``one time code``.
_WINDOW: Final = 48
_NOT_A_NAME: Final = re.compile(r".{0,48}[^\w.\- ]", re.DOTALL)

#: Terminal colours, as structlog puts them around names and values.
_COLOURS: Final = r"(?:\x1b\[[0-9;]{0,16}m){0,4}"
_SEPARATOR: Final = re.compile(
    rf"{_COLOURS}(?P<quote>{QUOTES}|%22|{ESCAPED_QUOTE}|[\]」』】〕］》〉]|\[\w{{0,16}}\]|%5[BbDd]){{0,2}}"  # noqa: RUF001
    rf"(?:[ ](?:is|was)(?=:))?[ \t\u3000]{{0,8}}{_COLOURS}"
    r"(?P<mark>=>|->|:=|[!=]?={1,2}|:{1,2}|[：＝]|%3[DdAa]|>(?!\s))"  # noqa: RUF001
    rf"{_COLOURS}[ \t\u3000]{{0,8}}{_COLOURS}(?!//)"
)
#: Owner or origin: ``password for bob: …``, ``API key provided: …``.
_WHOSE: Final = re.compile(
    r"[ ](?:for|of)[ ](?:(?:user|account|role)[ ])?[\"']?[\w.@+-]{1,64}[\"']?(?=:[ ]|[ ](?:is|was)[ ])"
    r"|[ ](?:provided|supplied|given|received|entered)(?=:[ ])"
)
#: Block scalar in YAML: the indented lines below.
_BLOCK: Final = re.compile(r"[|>][+-]?[ \t]{0,4}(?:\r?\n(?P<indent>[ \t]{1,32})(?=\S)|\Z|\r?\n)")
_PAIR: Final = re.compile(r"(\\{0,8}[\"'])[ \t]{0,4},[ \t]{0,4}(?=[bru]?\\{0,8}[\"'])")
_PAIR_END: Final = re.compile(rf"{QUOTES}?[ \t]{{0,4}}[)\]]")
#: ``password: str = "…"``
_ANNOTATION: Final = re.compile(
    r"(?:t\.|typing\.)?(?:str|bytes|bytearray|Any|Final|Optional|ClassVar|Annotated|Secret\w{0,16})(?:\[[^\]\n]{0,80}\])?"
    r"(?:[ ]?\|[ ]?None)?[ ]?=(?!=)[ ]{0,4}"
)
#: Codes often come in lists.
_MORE_CODES: Final = re.compile(
    r"(?:[,、・ ]{1,2}[A-Za-z0-9]{3,12}(?:-[A-Za-z0-9]{3,12}){1,6}(?![\w-])){1,32}+"
)
_LINK: Final = (
    r"(?:(?:set|changed|reset|updated|now|value|has|been|is|was|are)[ ]){0,4}(?:is|was|are|to|as|equals)[ ]"
)
_SET_TO: Final = re.compile(r"(?:set|changed|reset|updated)[ ]to[ ]\Z", re.IGNORECASE)
#: Words after ``set to`` that are not a password: ``set to expire``.
_NOT_SET_TO: Final = frozenset(
    ("expire", "never", "default", "allow", "deny", "require", "rotate", "renew", "false", "true")
)
#: ``password:`` with the value alone on the next line.
_NEXT_LINE: Final = re.compile(
    r"\r?\n[ \t\u3000]{0,32}(?P<value>[^\s:=<>{}()\[\]\"',;]{4,128})[ \t]{0,8}(?=\r?\n|\Z)"
)
_QUOTED: Final = re.compile(rf"[ \t\u3000]{{1,4}}(?:{_LINK})?+(?=\\{{0,8}}[\"'{OPENERS}])", re.IGNORECASE)
_SPACED: Final = re.compile(rf"[ \t\u3000]{{1,32}}({_LINK})?+(?=[^\s\"'])", re.IGNORECASE)
_FLAG: Final = re.compile(r"[\"']?[ \t]{0,4},?[ \t]{0,4}(?<=[ \t,])(?![\s-]|is )")
#: Starts the next word of a sentence and is not a separator.
_IN_SENTENCE: Final = f"\t{PARTICLES}{OPENERS}"
#: A space, or the end of a colour sequence.
_AFTER_COLON: Final = (" ", "\t", "\u3000", "m")
_LINE_ENDS: Final = frozenset("\r\n")
_COLONS: Final = frozenset((":", "\uff1a"))

#: Placeholders of SQL and templates, and values that are already masked.
_PLACEHOLDER: Final = re.compile(
    r"\*{1,64}|\?|%s|%\([a-z_][\w.]{0,63}\)s|\$[0-9]{1,3}|:[a-z_]{1,48}(?:_[0-9]{1,3})?|x{3,8}"
    r"|\{\{?[ ]?[a-z_.]{0,48}[ ]?\}?\}"
)
_FIRST_OF_PLACEHOLDER: Final = "*?%$:x{"
#: ``code [123456]``, and the reverse order: ``123456 is your code``.
_CODE_IN_BRACKETS: Final = re.compile(r"[ \t\u3000]{0,2}[\[(<](?P<value>\d{4,12})[\])>]")
_IS_THE_CODE: Final = re.compile(
    r"(?<![\d.-])(?P<value>\d{4,8})"
    r"(?:[ ]is[ ](?:[\w-]{1,24}[ ]){0,5}|[】」]?[ \u3000]?(?:が|は)[、 \u3000]?[^\W\d]{0,16})\Z"
)
_CODES: Final = ("code", "otp", "pin", "コード")

_WORD: Final = re.compile(r"[^\s\"'<>,;]++")
_DIGIT: Final = re.compile(r"\d")
_UNLIKE_PROSE: Final = re.compile(r"\d|[a-z][A-Z]|[A-Z]-")
_STRUCTURE: Final = re.compile(r"[=:(/\[{]")
_COMPOUND: Final = re.compile(r"[A-Za-z0-9][_-][A-Za-z0-9]|[a-z][A-Z]")
_GROUPS: Final = re.compile(r"[A-Z0-9]{3,}+(?:-[A-Z0-9]{3,}+)++")
#: Names of algorithms and numbered things: words with a digit that are not secret.
_COUNTED: Final = re.compile(
    r"(?:sha|md|[rhep]s|a|ed|aes|argon|pbkdf|bcrypt|scrypt|utf|base|ipv|http|oauth|saml|v|ver|version|id|no|row|line|page"
    r"|step|try|attempt|type|group|level|worker|node|shard|part|slot)[-_/#]?[0-9]{1,5}[a-z]{0,2}",
    re.IGNORECASE,
)
_NOT_NUMBERS: Final = frozenset(
    ("token", "session", "cookie", "sid", "auth", "pass", "key", "secret", "webhook")
)


def stem_pattern(extra: Iterable[str] = ()) -> re.Pattern[str]:
    """Return the pattern that finds candidate names in lower-case text, from the stem to the end of the word."""
    alternatives = [by_first_letter(STEMS)]
    alternatives += [r"[\W_]?".join(map(re.escape, normalise(name))) for name in extra]
    return re.compile(rf"(?a:{'|'.join(alternatives)}){_WORD_AFTER}")


def redact_named(
    text: str, stems: re.Pattern[str], is_secret_key: Callable[[str], bool], effort: StepLimit
) -> str:
    """Replace the values that follow a secret name; truncate the text when the step limit is reached."""
    shown = text
    # A case-sensitive search is ten times as fast.
    if text.isascii():
        lower = text.lower()
    else:
        text = folded(text)
        lower = lowered(text)
    out: list[str] = []
    done = position = 0
    while found := stems.search(lower, position):
        position = found.end()
        if not effort.spend(3):
            return "".join((*out, shown[done : max(done, found.start())], CUT))
        after = text[position : position + 1]
        if (
            after.isalnum()
            and after not in PARTICLES
            and (text[position - 1].isascii() or not after.isdigit())
        ):
            continue
        span = _value_span(text, found.start(), position, is_secret_key, effort)
        if span is None:
            continue
        start, end = span
        if end > start and _GROUPS.fullmatch(text, start, end) and (more := _MORE_CODES.match(text, end)):
            end = more.end()
        effort.spend(8)
        if end > start >= done:
            out += (shown[done:start], REDACTED)
            done = end
        position = max(end, position)
    out.append(shown[done:])
    return "".join(out)


def _value_span(
    text: str, stem: int, name_end: int, is_secret_key: Callable[[str], bool], effort: StepLimit
) -> _Span | None:
    name = _name_at(text, stem, name_end)
    effort.spend(3)
    if not name or not is_secret_key(name):
        return None
    effort.spend(14 if name.isascii() else 22)  # a non-ASCII name is normalised more than once
    plain = PLAIN_ASSIGNMENT.match(text, name_end)
    if plain:
        return _unless_harmless(text, name, plain.span("value"))
    whose = _WHOSE.match(text, name_end)
    name_end = whose.end() if whose else remark_end(text, name_end)
    after = text[name_end : name_end + 1]
    if after not in _IN_SENTENCE and (separator := _SEPARATOR.match(text, name_end)):
        return _separated(text, name, separator["mark"], separator.end(), effort)
    effort.spend(10)
    beside = in_element_or_part(text, stem, name_end, effort)
    if beside:
        return beside
    if after in "\"'\\":
        return _quoted_name(text, stem, name_end, name, effort)
    quoted = _QUOTED.match(text, name_end)
    if quoted:
        return _unless_harmless(text, name, value_at(text, quoted.end(), effort))
    if not text[name_end - 1 : name_end + 3].isascii():
        before = text[max(0, stem - _WINDOW) : stem]
        return sentence_value(text, text[stem:name_end], before, name_end, effort) or (
            _spaced(text, name_end, name, effort) or _code_around(text, stem, name_end, name)
        )
    if _is_flag(text, stem) and (flag := _FLAG.match(text, name_end)):
        return value_at(text, flag.end(), effort)
    return _spaced(text, name_end, name, effort) or _code_around(text, stem, name_end, name)


def _code_around(text: str, stem: int, name_end: int, name: str) -> _Span | None:
    """Return the span of digits in brackets after the name of a code, or of a code before it."""
    if not name.lower().endswith(_CODES):
        return None
    behind = _CODE_IN_BRACKETS.match(text, name_end)
    if behind:
        return behind.span("value")
    window = text[max(0, stem - _WINDOW) : stem]
    before = _IS_THE_CODE.search(window)
    offset = stem - len(window)
    return (before.start("value") + offset, before.end("value") + offset) if before else None


def _spaced(text: str, name_end: int, name: str, effort: StepLimit) -> _Span | None:
    """Return the span of a bare word after the name if it looks like a value."""
    spaced = _SPACED.match(text, name_end)
    word = spaced and _WORD.match(text, spaced.end())
    if spaced and word and (_is_opaque(word[0], name, linked=bool(spaced[1])) or _is_set(spaced[1], word[0])):
        start, end = value_at(text, spaced.end(), effort)
        return start, max(end, start)
    return None


def _name_at(text: str, stem: int, name_end: int) -> str:
    window = text[max(0, stem - _WINDOW) : stem]
    # Letters and spaces alone, as in most texts, need no search.
    foreign = None if window.replace(" ", "").isalnum() else _NOT_A_NAME.match(window)
    before = window[foreign.end() :] if foreign else window
    if foreign and foreign[0].endswith("\x1b["):
        before = before.partition("m")[2]
    # Three words suffice for every noun of the table, and shorter names are found in the cache more often.
    if before.count(" ") > 2:
        before = " ".join(before.split(" ")[-3:])
    return before + text[stem:name_end]


def _separated(text: str, name: str, mark: str, start: int, effort: StepLimit) -> _Span:
    if mark == ">":
        end = text.find("<", start)
        return start, end if end >= 0 else len(text)
    if mark in _COLONS and text[start : start + 1] in _LINE_ENDS and (below := _NEXT_LINE.match(text, start)):
        return _unless_harmless(text, name, below.span("value"), prose=True)
    block = _BLOCK.match(text, start) if mark == ":" else None
    if block:
        return (
            (block.end(), _block_end(text, block.end(), block["indent"]))
            if block["indent"]
            else (start, start)
        )
    annotation = _ANNOTATION.match(text, start) if mark == ":" else None
    span = value_at(text, annotation.end() if annotation else start, effort)
    unquoted = span[0] == start
    if mark in _COLONS and unquoted and "".join(normalise(name)).endswith(HEADER_NAMES):
        end = end_of_line(text, start)
        content = text[start:end].strip()
        return (
            (start, start)
            if content.lower() in HARMLESS_WORDS or not reveals_secret(content, name)
            else (start, end)
        )
    prose = mark in _COLONS and unquoted and (mark != ":" or text[start - 1 : start] in _AFTER_COLON)
    prose = prose or text[span[0] - 1 : span[0]] in OPENERS
    return _unless_harmless(text, name, span, prose=prose)


@cache
def _less_indented(indent: int) -> re.Pattern[str]:
    return re.compile(rf"\r?\n(?![ \t]{{{indent}}}|\r?\n)")


def _block_end(text: str, start: int, indent: str) -> int:
    """Return the end of the lines with this indentation."""
    end = _less_indented(len(indent)).search(text, start)
    return end.start() if end else len(text)


def _unless_harmless(text: str, name: str, span: _Span, *, prose: bool = False) -> _Span:
    start, end = span
    value = text[start:end]
    lower = value.lower()
    harmless = (
        lower in HARMLESS_VALUES
        or (lower[0] in _FIRST_OF_PLACEHOLDER and _PLACEHOLDER.fullmatch(lower))
        or not reveals_secret(value, name)
        or (prose and lower in HARMLESS_WORDS)
    )
    return (start, start) if harmless else span


def _quoted_name(text: str, stem: int, name_end: int, name: str, effort: StepLimit) -> _Span | None:
    beside = beside_quoted_name(text, stem, name_end, effort)
    if beside:
        return _unless_harmless(text, name, beside)
    flag = _is_flag(text, stem)
    pair = _PAIR.match(text, name_end)
    if pair:
        start, end = value_at(text, pair.end(), effort)
        return (start, end) if flag or _PAIR_END.match(text, end) else None
    if flag and (spaced := _FLAG.match(text, name_end)):
        return value_at(text, spaced.end(), effort)
    return None


def _is_flag(text: str, stem: int) -> bool:
    before = text[max(0, stem - _WINDOW) : stem]
    return "--" in before and re.split(r"[ \"'\[,]", before)[-1].startswith("--")


def _is_set(link: str | None, word: str) -> bool:
    """Whether the text states that the secret was set to this word."""
    word = word.rstrip(".:!?)]}").lower()
    is_assigned = link is not None and len(word) >= 4 and _SET_TO.search(link) is not None
    return is_assigned and word not in HARMLESS_WORDS and word not in _NOT_SET_TO


def _is_opaque(word: str, name: str, *, linked: bool) -> bool:
    """Whether a bare word after a name, or after ``is`` and ``to``, looks like its value rather than prose."""
    word = word.rstrip(".:!?)]}")
    if len(word) < 4 or not _UNLIKE_PROSE.search(word) or _STRUCTURE.search(word):
        return False
    compound = _COMPOUND.search(name.rpartition(" ")[2]) is not None
    has_digit = _DIGIT.search(word) is not None
    if linked and has_digit:
        return True
    if word.isdigit():
        return compound or normalise(name)[-1] not in _NOT_NUMBERS or len(word) >= 16
    if has_digit:
        return not _COUNTED.fullmatch(word) and (compound or len(word) >= 6)
    if _GROUPS.fullmatch(word):
        return True
    # The prefilter passes nothing without a digit, dash or underscore.
    return compound and ("_" in name or "-" in name) and not word.isupper() and len(word) >= 6

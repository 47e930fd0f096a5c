"""Secrets inside free text: what needs no name (JWT, keys, cards, URLs) and what stands behind a secret name.

Everything is linear in the text. Patterns have bounded or possessive repeats and start only at word borders; names
are found by their stems, and their surroundings are looked at in a bounded window.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mks_hardening._core.secret_names import HEADER_NAMES, STEMS, normalise

__all__ = ["REDACTED", "redact_cards", "redact_named", "redact_standalone", "stem_pattern"]

REDACTED: Final = "[REDACTED]"

# The start of a token: not inside a word, but directly after a percent escape.
_START = r"(?:(?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))"


def _token(body: str) -> re.Pattern[str]:
    return re.compile(_START + body)


# A literal that must occur, and the pattern that is tried only then.
_TOKENS: Final[tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]] = (
    (("eyJ",), _token(r"eyJ[\w-]{4,}+(?:\.[\w-]*+){1,4}+")),
    (("AKIA", "ASIA"), _token(r"A(?:KI|SI)A[0-9A-Z]{16}(?![0-9A-Za-z])")),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _token(r"gh[pousr]_[0-9A-Za-z]{16,}+")),
    (("github_pat_",), _token(r"github_pat_[0-9A-Za-z_]{16,}+")),
    (("glpat-",), _token(r"glpat-[\w-]{16,}+")),
    (("xox", "xapp-"), _token(r"(?:xox[a-z]|xapp)-[0-9A-Za-z-]{8,}+")),
    (("k_live_", "k_test_", "whsec_"), _token(r"(?:[spr]k_(?:live|test)|whsec)_[0-9A-Za-z]{8,}+")),
    (("sk-",), _token(r"sk-[\w-]{20,}+")),
    (("AIza",), _token(r"AIza[\w-]{30,}+")),
    (("npm_", "pypi-"), _token(r"(?:npm_|pypi-)[\w-]{16,}+")),
)
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"[^-]*+(?:-(?!----)[^-]*+)*+(?:-----END [A-Z0-9 ]{0,48}-----)?"
)
_WEBHOOK: Final = re.compile(
    r"(hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/)[^\s\"'<>\\]++",
    re.IGNORECASE,
)
_BLANK: Final = r"((?:[ \t]|%20|\+){1,4})"
_BEARER: Final = re.compile(rf"\b([Bb]earer|BEARER){_BLANK}([\w.~+/=:%-]{{4,}}+)")
_BASIC: Final = re.compile(rf"\b(Basic|BASIC){_BLANK}([A-Za-z0-9+/=_-]{{4,}}+)")
_DIGIT: Final = re.compile("[0-9]")
_URL: Final = re.compile(r"([A-Za-z0-9+.-]{1,20}+)://([^\s\"'<>\\]++)")
_URL_QUERY: Final = re.compile(
    r"([?&](?:code|sig|signature|ticket|samlresponse|assertion)=)([^\s&#\"'<>\\]++)", re.IGNORECASE
)
# Groups of digits with one blank or dash between them; a group longer than a card number belongs to none.
_DIGITS: Final = re.compile(r"(?<![\w.])\d{1,19}+(?!\w)(?:[ -]\d{1,19}+(?!\w)){0,31}+")

_WORD_BEFORE: Final = re.compile(r"[\w.\- ]{0,48}\Z")
_WORD_AFTER: Final = re.compile(
    r"(?:(?![はが])[\w.-]){0,64}+(?:[ ](?:id|ids|number|no|string)\b)?+", re.IGNORECASE
)
_SEPARATOR: Final = re.compile(
    r"(?P<quote>\\{0,8}[\"'`]|%22|&quot;|\]){0,2}[ \t]{0,8}"
    r"(?P<mark>=>|->|:=|[!=]?={1,2}|:{1,2}|[：＝]|%3[DdAa]|>(?!\s))[ \t]{0,8}(?!//)"  # noqa: RUF001
)
_SPACED: Final = re.compile(
    r"[ \t]{1,4}(?=\\{0,8}[\"'])|[ ]is[ ](?=[^\s]*\d)|[ \t]{0,2}[はが][ \t]{0,2}(?=[!-~]{4})"
)
_PAIR: Final = re.compile(r"(\\{0,8}[\"'])[ \t]{0,4},[ \t]{0,4}(?=[bru]?\\{0,8}[\"'])")
_PAIR_END: Final = re.compile(r"\\{0,8}[\"'`]?[ \t]{0,4}[)\]]")
_FLAG: Final = re.compile(r"[ \t]{1,4}(?![\s-]|is )")
_QUOTE: Final = re.compile(r"[bruBRU]{0,2}(\\{0,8}[\"'`]|%22|&quot;)")
_BARE: Final = re.compile(
    r"(?:(?:bearer|basic|digest|token|apikey|negotiate)[ \t]{1,4})?"
    r"(?:[^\s&,;\"'<>\\]|[,;](?![\s\"']|\Z|[\w.-]{1,48}[=:])|\\(?![\"'nrt]))*+",
    re.IGNORECASE,
)
_REST_OF_LINE: Final = re.compile(r"[^\r\n\"]*+")
_COLONS: Final = frozenset((":", "\uff1a"))
_CLOSERS: Final = {"[": "]", "(": ")", "{": "}"}
_HARMLESS_VALUES: Final = frozenset(
    (
        "",
        "none",
        "null",
        "nil",
        "true",
        "false",
        "str",
        "bytes",
        "int",
        "...",
        "…",
        "undefined",
    )
)


def redact_standalone(text: str) -> str:
    """Replace secrets that are known by their own shape."""
    if "-----BEGIN" in text:
        text = _PEM.sub(REDACTED, text)
    for literals, pattern in _TOKENS:
        for literal in literals:
            if literal in text:
                text = pattern.sub(REDACTED, text)
                break
    if "://" in text:
        text = _URL.sub(_without_credentials, text)
    if "?" in text or "&" in text:
        text = _URL_QUERY.sub(rf"\1{REDACTED}", text)
    if ".com/" in text:
        text = _WEBHOOK.sub(rf"\1{REDACTED}", text)
    return _BASIC.sub(_without_basic, _BEARER.sub(_without_bearer, text))


def _without_credentials(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        _, colon, port = authority.rpartition(":")
        # A password with a raw slash in it: what looks like a port is not a number.
        if not colon or port.isdigit() or not port or "@" not in rest or "]" in port:
            return match[0]
    user, colon, _ = rest.partition("@")[0].partition(":")
    if not colon:
        token_alone = user and scheme.lower().startswith("http")
        return f"{scheme}://{REDACTED}{rest[len(user) :]}" if token_alone else match[0]
    # A password may hold a raw "@" and "/": everything up to the last "@" before the query belongs to it.
    head, mark, query = rest.partition("?")
    if "@" not in head:
        head, mark, query = rest, "", ""
    return f"{scheme}://{user}:{REDACTED}@{head.rpartition('@')[2]}{mark}{query}"


def _without_bearer(match: re.Match[str]) -> str:
    scheme, blank, value = match.groups()
    has_digit = _DIGIT.search(value) is not None
    secret = has_digit or (scheme[0] == "B" and (len(value) >= 20 or not value.isalpha()))
    return f"{scheme}{blank}{REDACTED}" if secret else match[0]


def _without_basic(match: re.Match[str]) -> str:
    scheme, blank, value = match.groups()
    return f"{scheme}{blank}{REDACTED}" if _is_basic(value) else match[0]


def _is_basic(value: str) -> bool:
    from binascii import a2b_base64

    try:
        return b":" in a2b_base64(value + "=" * (-len(value) % 4))
    except ValueError:
        return False


def redact_cards(text: str) -> str:
    """Replace payment card numbers: 13 to 19 digits of a known issuer with a right check digit (ISO/IEC 7812)."""
    return _DIGITS.sub(_without_cards, text)


def _without_cards(match: re.Match[str]) -> str:
    if match.end() - match.start() < 13:
        return match[0]
    pieces = re.split("([ -])", match[0])
    groups = pieces[::2]
    out: list[str] = []
    first = 0
    while first < len(groups):
        last = _end_of_card(groups, first)
        out.append(REDACTED if last > first else pieces[2 * first])
        first = max(last, first + 1)
        out += pieces[2 * first - 1 : 2 * first]
    return "".join(out)


def _end_of_card(groups: list[str], first: int) -> int:
    """Where the card number that begins with this group ends: one long group, or three and more short ones."""
    if len(groups[first]) >= 13:
        return first + 1 if is_card(groups[first]) else first
    number = ""
    for last in range(first, min(len(groups), first + 7)):
        if not 2 <= len(groups[last]) <= 7:
            break
        number += groups[last]
        if len(number) > 19:
            break
        if len(number) >= 13 and is_card(number):
            return last + 1
    return first


_ISSUERS: Final = re.compile(r"4|5[0-8]|6|3[4-9]|30[0-5]|35|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def is_card(text: str) -> bool:
    """Whether the digits of the text are a plausible card number."""
    digits = "".join(filter(str.isdecimal, text))
    if not digits.isascii():
        digits = "".join(str(int(digit)) for digit in digits)
    if not 13 <= len(digits) <= 19 or not _ISSUERS.match(digits) or len(set(digits)) == 1:
        return False
    return (
        sum(map(_DOUBLED.__getitem__, map(int, digits[-2::-2]))) + sum(map(int, digits[-1::-2]))
    ) % 10 == 0


def stem_pattern(extra: tuple[str, ...] = ()) -> re.Pattern[str]:
    """The pattern that finds places where a secret name may stand."""
    alternatives = [re.escape(stem) for stem in STEMS]
    alternatives += [r"[\W_]?".join(map(re.escape, normalise(name))) for name in extra]
    # ASCII: no foreign letters folded to ours, as in the bytes that the gate looks at.
    return re.compile("|".join(alternatives), re.IGNORECASE | re.ASCII)


def redact_named(text: str, stems: re.Pattern[str], is_secret_key: Callable[[str], bool]) -> str:
    """Replace the values that stand behind a secret name."""
    out: list[str] = []
    done = position = 0
    while found := stems.search(text, position):
        name_end = _end(_WORD_AFTER, text, found.end())
        position = name_end
        span = _value_span(text, found.start(), name_end, is_secret_key)
        if span is None:
            continue
        start, end = span
        if text[start:end].lower() not in _HARMLESS_VALUES:
            out += (text[done:start], REDACTED)
            done = end
        position = max(end, name_end)
    out.append(text[done:])
    return "".join(out)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _value_span(
    text: str, stem_start: int, name_end: int, is_secret_key: Callable[[str], bool]
) -> tuple[int, int] | None:
    before = _WORD_BEFORE.search(text, max(0, stem_start - 48), stem_start)
    name_start = before.start() if before else stem_start
    name = text[name_start:name_end]
    separator = _SEPARATOR.match(text, name_end)
    if separator:
        if not is_secret_key(name):
            return None
        mark, start = separator["mark"], separator.end()
        if mark == ">":
            end = text.find("<", start)
            return start, end if end >= 0 else len(text)
        if (
            mark in _COLONS
            and "".join(normalise(name)).endswith(HEADER_NAMES)
            and not _QUOTE.match(text, start)
        ):
            return start, _end(_REST_OF_LINE, text, start)
        return _value_at(text, start)
    pair = _PAIR.match(text, name_end)
    if pair and is_secret_key(name):
        start, end = _value_at(text, pair.end())
        return (start, end) if _PAIR_END.match(text, end) else None
    spaced = _SPACED.match(text, name_end) or (
        _FLAG.match(text, name_end)
        if text[max(0, stem_start - 48) : stem_start].rpartition(" ")[2].startswith("--")
        else None
    )
    if spaced and is_secret_key(name):
        return _value_at(text, spaced.end())
    return None


def _value_at(text: str, start: int) -> tuple[int, int]:
    quote = _QUOTE.match(text, start)
    if quote:
        return quote.end(), _closing_quote(text, quote.end(), quote[1])
    if text[start : start + 1] in _CLOSERS:
        return start, _closing_bracket(text, start)
    end = _end(_BARE, text, start)
    while end > start and text[end - 1] in ")]}>.":
        end -= 1
    return start, end


def _closing_quote(text: str, start: int, quote: str) -> int:
    position = text.find(quote, start)
    while position > 0 and text[position - 1] == "\\" and len(quote) == 1:
        position = text.find(quote, position + 1)
    return position if position >= 0 else _end(_REST_OF_LINE, text, start)


def _closing_bracket(text: str, start: int) -> int:
    opener, closer = text[start], _CLOSERS[text[start]]
    depth = 0
    for match in re.compile(f"[\\{opener}\\{closer}]").finditer(text, start):
        depth += 1 if match[0] == opener else -1
        if depth == 0:
            return match.end()
    return len(text)

# ruff: noqa: RUF001, RUF002 - wide brackets, colons and digits are the subject
"""Start of a value in a Japanese sentence: ``パスワードを「…」に``, ``認証コード（…）``, ``【パスワード】…``.

Words are not separated by spaces, so a name ends at a particle, and a value at the first letter of the next word.
"""

from __future__ import annotations

import re
from string import ascii_letters, ascii_lowercase, ascii_uppercase
from typing import Final

from mks_hardening._core.redaction.secret_patterns import HARMLESS_WORDS
from mks_hardening._core.redaction.step_limit import StepLimit
from mks_hardening._core.redaction.value_end import OPENERS, value_at

__all__ = ["PARTICLES", "folded", "lowered", "remark_end", "sentence_value"]

#: A name ends before any of these.
PARTICLES: Final = "はがをもにのとで"

_BLANK: Final = "[ \t\u3000]{0,2}"
_PLAIN: Final = "[!-~０-９Ａ-Ｚａ-ｚ]"
_CLOSERS: Final = "[」』】〕］》〉]?"
_QUOTE: Final = f"(?=[{OPENERS}])"
#: ``は「…」``, ``「…」``, ``は abcd``: the predicate is the value.
_SAID: Final = re.compile(
    f"{_CLOSERS}{_BLANK}(?:には|とは|[はが→⇒])[、:：]?{_BLANK}(?:{_QUOTE}|(?={_PLAIN}{{4}}))|(?={_QUOTE})"
)
#: ``を「…」に変更``, ``を abcd に設定``.
_MADE: Final = re.compile(
    f"を{_BLANK}(?=[{OPENERS}][^\\n]{{1,128}}?[」』】〕］》〉”’]{_BLANK}[にへ]{_BLANK}(?:再?設定|変更|更新|変え|し|登録|差し替え)"
    f"|{_PLAIN}{{4,128}}{_BLANK}[にへ]{_BLANK}(?:再?設定|変更|更新|変え|リセット|初期化))"
)
#: Elsewhere in a sentence, only what looks like a value: ``の「abcd1234」が``, ``として「abcd1234``.
_MENTIONED: Final = re.compile(
    f"{_CLOSERS}(?:として|の値は?|[をものにと、・]){_BLANK}(?=[{OPENERS}](?P<value>{_PLAIN}{{4,64}})[」』】〕］》〉”’])"
)
_IN_BRACKETS: Final = re.compile(r"[(（［\[](?=(?P<value>[!-'*-Z^-~０-９]{4,64})[)）］\]])")
_DIGIT: Final = re.compile(r"\d")
#: ``【仮パスワード】…``, ``[パスワード] …``, ``■パスワード`` with the value on the next line, as in mails.
_HEADING: Final = re.compile(
    f"(?:[】］〕＞>\\]][ \t\u3000\r\n]{{0,4}}|[ \t\u3000]{{0,2}}\r?\n[ \t\u3000]{{0,4}})(?={_PLAIN}{{4}})"
)
_HEADED: Final = re.compile(r"[【［〔＜<\[■◆●▼□◇○▽★☆]\w{0,16}\Z")
_REMARK: Final = re.compile(r"[(（][^()（）\[\]\r\n「」=:：]{1,16}[)）]|の値")
_CODE: Final = re.compile(r"\d{4,12}(?![\d個件回字桁文人円年])")
_CODE_NAMES: Final = ("コード", "ｺｰﾄﾞ", "番号", "ワード", "ﾜｰﾄﾞ", ")", "）")
#: The kind of secret or its channel: ``トークンは JWT です``, ``認証コードは SMS で``.
_KIND: Final = re.compile("[A-Z]{3,8}|bcrypt|scrypt|argon2(?:id|i|d)?|pbkdf2|sha[0-9]{1,3}|md5")
_LINK: Final = re.compile("https?://")
_LETTERS: Final = re.compile("[A-Za-z]{1,64}")
#: A word of letters only is a value only at the end of a sentence: not in ``パスワードは Keycloak で管理``.
_ENDS: Final = re.compile(
    f"{_BLANK}(?:です|でした|である|だ|[にへ](?:再?設定|変更|更新|変|な)|と|[、。」）)]|\\Z)"
)

_WIDE: Final = re.compile("[Ａ-Ｚａ-ｚ]")
_NARROW: Final = {0xFEE0 + ord(letter): letter for letter in ascii_letters}
_SHORT: Final = 256


def folded(text: str) -> str:
    """Return the text with fullwidth Latin letters narrowed; positions are unchanged."""
    if text.isascii() or _WIDE.search(text) is None:
        return text
    if len(text) <= _SHORT:
        return text.translate(_NARROW)
    # In a long text, fifty searches for one character take a tenth of the time.
    for wide, narrow in _NARROW.items():
        text = text.replace(chr(wide), narrow)
    return text


def lowered(text: str) -> str:
    """Return the text with ASCII letters in lower case; positions are unchanged."""
    if text.isascii():
        return text.lower()
    if len(text) <= _SHORT:
        return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    # A long text may consist of lone surrogates, for each of which the codec calls its error handler.
    for large, small in zip(ascii_uppercase, ascii_lowercase, strict=True):
        text = text.replace(large, small)
    return text


def _with_digit(match: re.Match[str] | None) -> re.Match[str] | None:
    return match if match and _DIGIT.search(match["value"]) else None


def remark_end(text: str, end: int) -> int:
    """Return the end of a remark after a name: ``パスワード（確認用）``, ``パスワードの値``."""
    after = text[end : end + 1]
    if after.isascii() and (after != "(" or text[end - 1].isascii()):
        return end
    remark = None if _with_digit(_IN_BRACKETS.match(text, end)) else _REMARK.match(text, end)
    return remark.end() if remark else end


def sentence_value(text: str, name: str, before: str, end: int, effort: StepLimit) -> tuple[int, int] | None:
    """Return the span of the value that the sentence assigns to the name.

    Args:
        text: text that contains the name.
        name: the name that ends at ``end``.
        before: text before the name.
        end: end of the name.
        effort: remaining steps.
    """
    after = text[end : end + 1]
    if after.isdigit():
        code = _CODE.match(text, end) if name.endswith(_CODE_NAMES) else None
        return code.span() if code else None
    found = _SAID.match(text, end) or _MADE.match(text, end) or _with_digit(_MENTIONED.match(text, end))
    if found is None and not name[-1:].isascii():
        found = _with_digit(_IN_BRACKETS.match(text, end))
        if found:
            return found.span("value")
    if found is None and _HEADED.search(before.rstrip()):
        found = _HEADING.match(text, end)
    if found is None:
        return None
    start, stop = value_at(text, found.end(), effort, in_sentence=True)
    if start > found.end():
        return (start, start) if text[start:stop].lower() in HARMLESS_WORDS else (start, stop)
    if _KIND.fullmatch(text, start, stop) or _LINK.match(text, start, stop):
        return None
    is_prose = _LETTERS.fullmatch(text, start, stop) and not _ENDS.match(text, stop)
    return None if is_prose else (start, stop)

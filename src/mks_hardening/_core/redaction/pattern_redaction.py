"""Secrets in free text that need no name: tokens of known shape, keys, URLs with credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from mks_hardening._core.redaction.secret_names import ends_in_secret
from mks_hardening._core.redaction.secret_patterns import SECRET_PATTERNS, SecretPattern
from mks_hardening._core.redaction.step_limit import CUT, REDACTED, StepLimit, replace_matches

__all__ = ["PATTERNS", "redact_patterns"]

# The start of a token: not inside a word, but directly after a percent escape.
_START: Final = r"(?:(?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))"
_DIGIT: Final = re.compile("[0-9]")
_AFTER_KEY: Final = re.compile(
    r"\) (?:already exists|is duplicated|is (?:not present in|still referenced from) table \"[^\"\n]{1,128}\")"
    r"\.?\s{0,8}\Z"
)
#: Tokens of a row of values, and texts that are not a value.
_SQL_TOKEN: Final = re.compile(r"'(?:[^']|'')*+'?|[(),]")
_NO_VALUE: Final = re.compile(r"(?i:null|default)|\?|%s|%\(\w{1,64}\)s|[:$@]\w{1,64}|")
_MOST_TOKENS: Final = 600  # everything after these is redacted as a whole
_STEPS: Final = 8
_STEPS_OF_A_PASS: Final = 10
_STEPS_OF_THE_LONG: Final = 15  # for patterns with a judge function, or that scan the arguments of a command


def _compiled(form: SecretPattern) -> re.Pattern[str]:
    flags = re.IGNORECASE | re.ASCII if form.folded else 0
    return re.compile(form.pattern if form.inside else _START + form.pattern, flags)


#: Compiled pattern of each row of the table.
PATTERNS: Final = {form: _compiled(form) for form in SECRET_PATTERNS}


def redact_patterns(text: str, forms: Iterable[SecretPattern], effort: StepLimit) -> str:
    """Replace secrets that match these patterns; truncate the text when the step limit is reached."""
    for form in forms:
        effort.next_pass()
        if form.folded:
            matches = PATTERNS[form].finditer(text)
            text = replace_matches(text, matches, _REPLACEMENTS[form.judge], effort, steps=_steps(form))
        else:
            text = _without(text, form, effort)
    return text


def _without(text: str, form: SecretPattern, effort: StepLimit) -> str:
    """Replace the matches of one case-sensitive pattern."""
    # Matches are located by their literals: searching with the pattern itself would cost ten times as much.
    pattern, judge, steps = PATTERNS[form], _REPLACEMENTS[form.judge], _steps(form)
    out: list[str] = []
    done = end = 0
    places = {literal: place for literal in form.literals if (place := text.find(literal)) >= 0}
    if places:
        effort.spend(_STEPS_OF_A_PASS)
    while places:
        literal = min(places, key=places.__getitem__) if len(places) > 1 else next(iter(places))
        place = places[literal]
        if place >= end:
            if not effort.spend(steps):
                return "".join((*out, text[done:place], CUT))
            match = pattern.match(text, place)
            if match:
                end = match.end()
                if (new := judge(match)) is not None:
                    out += (text[done:place], new)
                    done = end
        following = text.find(literal, max(place + 1, end))
        if following >= 0:
            places[literal] = following
        else:
            del places[literal]
    return "".join((*out, text[done:])) if out else text


def _steps(form: SecretPattern) -> int:
    return _STEPS_OF_THE_LONG if form.judge or form.needs else _STEPS


def _whole(match: re.Match[str]) -> str:
    return f"{match['kept']}{REDACTED}" if match.re.groups else REDACTED


def _url(match: re.Match[str]) -> str | None:
    rest = match[0][3:]
    if "@" not in rest:
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        _, colon, port = authority.rpartition(":")
        # A password with an unescaped slash: what looks like a port is not a number.
        if not colon or port.isdigit() or not port or "]" in port:
            return None
    user, colon, _ = rest.partition("@")[0].partition(":")
    if not colon:
        # The user name is an email address: smtp://bob@example.com:password@mail
        user, colon, _ = authority.rpartition("@")[0].partition(":")
    if not colon:
        scheme = match.string[max(0, match.start() - 5) : match.start()].lower()
        token_alone = user and scheme.endswith(("http", "https"))
        return f"://{REDACTED}{rest[len(user) :]}" if token_alone else None
    # A password may contain an unescaped "@" and "/": it ends at the last "@" before the query.
    head, mark, query = rest.partition("?")
    if "@" not in head:
        head, mark, query = rest, "", ""
    return f"://{user}:{REDACTED}@{head.rpartition('@')[2]}{mark}{query}"


def _key(match: re.Match[str]) -> str:
    # What PostgreSQL adds after the value; only the last words of the message, which cannot be part of a value.
    tail = _AFTER_KEY.search(match[0])
    return f"{match['kept']}{REDACTED}{tail[0] if tail else ''}"


def _insert(match: re.Match[str]) -> str | None:
    columns = [name.strip(' \t\r\n"`[]') for name in match["columns"].split(",")]
    secret = {place for place, name in enumerate(columns) if ends_in_secret(name)}
    if not secret:
        return None
    before, rows = match[0][: match.start("rows") - match.start()], match["rows"]
    out: list[str] = []
    place = depth = start = 0

    def end_value(end: int) -> None:
        given = rows[start:end]
        is_secret = depth == 1 and place in secret and not _NO_VALUE.fullmatch(given.strip())
        blank = given[: len(given) - len(given.lstrip())]
        out.append(f"{blank}{REDACTED}" if is_secret else given)

    for number, token in enumerate(_SQL_TOKEN.finditer(rows)):
        if number >= _MOST_TOKENS:
            return f"{before}{''.join(out)}{REDACTED}"
        mark = token[0]
        if mark == "(":
            depth += 1
            if depth == 1:
                out.append(rows[start : token.end()])
                place, start = 0, token.end()
        elif mark == ")":
            if depth == 1:
                end_value(token.start())
                start = token.start()
            depth -= 1
        elif mark == "," and depth == 1:
            end_value(token.start())
            out.append(",")
            place, start = place + 1, token.end()
    end_value(len(rows))
    return before + "".join(out)


def _bearer(match: re.Match[str]) -> str | None:
    value = match["value"]
    has_digit = _DIGIT.search(value) is not None
    secret = has_digit or (match[0][0] == "B" and (len(value) >= 20 or not value.isalpha()))
    return _without_value(match) if secret else None


def _basic(match: re.Match[str]) -> str | None:
    from binascii import a2b_base64

    value = match["value"]
    try:
        secret = b":" in a2b_base64(value + "=" * (-len(value) % 4))
    except ValueError:
        secret = False
    return _without_value(match) if secret else None


def _without_value(match: re.Match[str]) -> str:
    return f"{match[0][: match.start('value') - match.start()]}{REDACTED}"


_REPLACEMENTS: Final[dict[str, Callable[[re.Match[str]], str | None]]] = {
    "": _whole,
    "url": _url,
    "bearer": _bearer,
    "key": _key,
    "insert": _insert,
    "basic": _basic,
}

"""Takes secrets out of what is about to leave the process: structures, texts, query strings and URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import islice
from typing import Final, TypeAlias, cast

from mks_hardening._core.memo import Memo
from mks_hardening._core.redact_text import (
    REDACTED,
    is_card,
    redact_cards,
    redact_named,
    redact_standalone,
    stem_pattern,
)
from mks_hardening._core.secret_gate import may_hold_secret, stems_in_bytes
from mks_hardening._core.secret_names import QUERY_NAMES, STEMS, ends_in_secret, normalise
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CUT", "REDACTED", "SecretRedactor", "default_redactor", "tells"]

#: Stands where something was left out.
CUT: Final = "…"

_Container: TypeAlias = Mapping[object, object] | list[object] | tuple[object, ...] | AbstractSet[object]

_MAX_DEPTH: Final = 64
_LONGEST_NAME: Final = 128
_MAX_MEMBERS: Final = 10_000
_MAX_CHARACTERS: Final = 1_048_576
_SHORTEST_CARD: Final = 10**12
_CONTAINERS: Final = frozenset((dict, list, tuple, set, frozenset))
_PLAIN: Final = (bool, float, type(None))


class SecretRedactor:
    """Replaces secrets by name at any depth and by shape inside text.

    Names count by their end: ``db_password`` is secret, ``password_policy`` is not. ``None``, booleans and empty
    strings stay, since they tell nothing. Work is linear in the size of what is given.

    Args:
        keys: further names whose values are secret, in any spelling (``employeeNumber`` covers
            ``employee_number``).
        patterns: further regular expressions; the group named ``secret`` is replaced, or the whole match.

    Raises:
        ConfigurationError: a name without letters, or a pattern that does not compile.
    """

    __slots__ = ("_endings", "_gate", "_names", "_patterns", "_stems")

    def __init__(self, *, keys: Iterable[str] = (), patterns: Iterable[str | re.Pattern[str]] = ()) -> None:
        names = tuple(keys)
        self._endings = tuple("".join(_words(name)) for name in names)
        self._patterns = tuple(_compiled(pattern) for pattern in patterns)
        self._stems = stem_pattern(names)
        self._gate = stems_in_bytes((*STEMS, *(word for name in names for word in normalise(name))))
        self._names: Memo[str, tuple[str, bool]] = Memo(self._judge, longest=_LONGEST_NAME)

    def is_secret_key(self, name: object) -> bool:
        """Whether values under this name are secret."""
        if isinstance(name, bytes):
            name = name.decode("utf-8", "replace")
        return isinstance(name, str) and self._names[name][1]

    def redact_text(self, text: str) -> str:
        """The text with every secret inside it replaced by ``[REDACTED]``; cut at a million characters."""
        if len(text) > _MAX_CHARACTERS:
            text = text[: _MAX_CHARACTERS - 1] + CUT
        if not self._patterns and not may_hold_secret(text.encode("utf-8", "surrogatepass"), self._gate):
            return text
        text = redact_cards(redact_standalone(text))
        text = redact_named(text, self._stems, self.is_secret_key)
        for pattern in self._patterns:
            text = pattern.sub(_replace_group, text)
        return text

    def redact(self, value: object) -> object:
        """A copy of the structure without secrets; mappings become ``dict``, sets become ``list``.

        Containers are cut at ten thousand members and at 64 levels; ``…`` marks the place.
        """
        return self._walk(value, _MAX_DEPTH, set())

    def redact_query(self, query_string: str) -> str:
        """The query string with the values of secret parameters replaced (OAuth ``code`` and signatures too)."""
        if not query_string:
            return query_string
        parts = [part.partition("=") for part in query_string.split("&")]
        oauth = any(name == "code" for name, _, _ in parts)
        return "&".join(
            f"{name}{equals}{self._query_value(name, value, oauth=oauth)}" for name, equals, value in parts
        )

    def redact_url(self, url: str) -> str:
        """The URL without credentials, secret parameters and webhook paths."""
        rest, hash_mark, fragment = url.partition("#")
        base, question, query = rest.partition("?")
        if "@" in fragment or ("@" in query and "@" not in base):
            return self.redact_text(url)
        fragment = self.redact_query(fragment) if "=" in fragment else self.redact_text(fragment)
        return f"{self.redact_text(base)}{question}{self.redact_query(query)}{hash_mark}{fragment}"

    def _query_value(self, name: str, value: str, *, oauth: bool) -> str:
        from urllib.parse import unquote_plus

        if not value:
            return value
        plain_name = unquote_plus(name)
        joined = "".join(normalise(plain_name))
        if self.is_secret_key(plain_name) or joined in QUERY_NAMES or (oauth and joined == "state"):
            return REDACTED
        plain = unquote_plus(value)
        clean = self.redact_text(plain)
        if clean == plain:
            return value
        return self.redact_text(value) if plain == value else REDACTED

    def _walk(self, value: object, depth: int, path: set[int]) -> object:
        kind = type(value)
        if kind not in _CONTAINERS:
            if isinstance(value, str):
                return self.redact_text(value)
            if isinstance(value, _PLAIN):
                return value
            if isinstance(value, int):
                return REDACTED if value >= _SHORTEST_CARD and is_card(str(value)) else value
            if not isinstance(value, (Mapping, list, tuple, AbstractSet)):
                return self._leaf(value)
        container = cast("_Container", value)
        if depth == 0 or id(container) in path:
            return CUT
        path.add(id(container))
        try:
            return self._container(container, depth - 1, path)
        finally:
            path.discard(id(container))

    def _container(self, value: _Container, depth: int, path: set[int]) -> object:
        if isinstance(value, Mapping):
            return self._mapping(value, depth, path)
        if isinstance(value, tuple):
            names = getattr(value, "_fields", None)
            if names:
                return self._mapping(dict(zip(names, value, strict=False)), depth, path)
            if len(value) == 2 and isinstance(value[0], (str, bytes)):
                return value[0], self._member(value[0], value[1], depth, path)
        members = [self._walk(member, depth, path) for member in islice(value, _MAX_MEMBERS)]
        if len(value) > _MAX_MEMBERS:
            members.append(CUT)
        return tuple(members) if isinstance(value, tuple) else members

    def _mapping(self, value: Mapping[object, object], depth: int, path: set[int]) -> dict[object, object]:
        clean: dict[object, object] = {}
        for name, member in islice(value.items(), _MAX_MEMBERS):
            shown, secret = self._names[name] if isinstance(name, str) else (name, self.is_secret_key(name))
            while shown in clean:
                shown = f"{shown}_"
            clean[shown] = REDACTED if secret and tells(member) else self._walk(member, depth, path)
        if len(value) > _MAX_MEMBERS:
            clean[CUT] = CUT
        return clean

    def _member(self, name: object, value: object, depth: int, path: set[int]) -> object:
        return REDACTED if tells(value) and self.is_secret_key(name) else self._walk(value, depth, path)

    def _judge(self, name: str) -> tuple[str, bool]:
        """A name as it may be shown, and whether what stands under it is secret."""
        return self.redact_text(name), ends_in_secret(name[-_LONGEST_NAME:], extra_endings=self._endings)

    def _leaf(self, value: object) -> object:
        if isinstance(value, (bytes, bytearray)):
            text = value.decode("utf-8", "backslashreplace")
            clean = self.redact_text(text)
            return value if clean == text else clean
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(extra_keys={len(self._endings)}, extra_patterns={len(self._patterns)})"


def tells(value: object) -> bool:
    """Whether a value under a secret name gives anything away: nothing, a yes or no and empty text do not."""
    return not (value is None or isinstance(value, bool) or (isinstance(value, (str, bytes)) and not value))


def _words(name: object) -> list[str]:
    words = normalise(name) if isinstance(name, str) else []
    if not words:
        raise ConfigurationError(
            f"keys must be names with at least one letter, not {type(name).__name__}", parameter="keys"
        )
    return words


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigurationError(
            f"patterns must be regular expressions for text: {error}", parameter="patterns"
        ) from None


def _replace_group(match: re.Match[str]) -> str:
    if "secret" not in match.re.groupindex or match["secret"] is None:
        return REDACTED
    start, end = match.span("secret")
    offset = match.start()
    return f"{match[0][: start - offset]}{REDACTED}{match[0][end - offset :]}"


@cache
def default_redactor() -> SecretRedactor:
    """The redactor that everything uses when none is given."""
    return SecretRedactor()

"""Redactor for data that leaves the process: structures, text, query strings and URLs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import islice
from typing import Any, Final, TypeAlias, cast

from mks_hardening._core.checks import instances, strings
from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.card_numbers import SHORTEST_CARD, is_card, redact_cards
from mks_hardening._core.redaction.named_values import redact_named, stem_pattern
from mks_hardening._core.redaction.pattern_redaction import redact_patterns
from mks_hardening._core.redaction.plain_data import UniqueNames
from mks_hardening._core.redaction.prefilter import Prefilter, SuspectedSecrets
from mks_hardening._core.redaction.secret_names import STEMS, ends_in_secret, normalise, reveals_secret
from mks_hardening._core.redaction.secret_patterns import QUERY_NAMES
from mks_hardening._core.redaction.step_limit import CUT, REDACTED, StepLimit, replace_matches
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "CUT",
    "REDACTED",
    "RecordRedactor",
    "SecretRedactor",
    "default_redactor",
    "encoded_if_clean",
    "reveals_secret",
]

_Container: TypeAlias = Mapping[object, object] | list[object] | tuple[object, ...] | AbstractSet[object]

_MAX_DEPTH: Final = 64
_LONGEST_NAME: Final = 128
_NAME_EFFORT: Final = 12  # steps for classifying a name that is not cached
_UNESCAPE_EFFORT: Final = 8
_MAX_MEMBERS: Final = 10_000
_MAX_CHARACTERS: Final = 1_048_576
# A stem of two letters, a separator, and a value.
_SHORTEST: Final = 4
_MOST_NAMES: Final = 4096
# Names have at most 256 characters, and containers at most 12 levels, in any data that is not truncated.
_MOST_SMALL_CHARACTERS: Final = 256
_MOST_SMALL_MEMBERS: Final = 64
_MOST_SMALL_CONTAINERS: Final = 10
_MOST_PARAMETERS: Final = 400
_HIDDEN: Final = "="  # cannot occur in a name
_CONTAINERS: Final = frozenset((dict, list, tuple, set, frozenset))
_PLAIN: Final = (bool, float, type(None))
_PASSWORD_TYPES: Final = frozenset(("password", "Password", "passwd", "passphrase", "secret"))
#: Keys under which forms, headers, changes and errors given as data store the name of a field …
_LABELS: Final = frozenset((
    "name", "Name", "key", "Key", "field", "header", "parameter", "id", "label", "variable", "attribute",
    "property", "option", "env", "column", "param", "path", "setting", "k", "field_name", "fieldName",
    "param_name", "paramName", "loc", "type",
))  # fmt: skip
#: … and its value.
_HOLDERS: Final = frozenset((
    "value", "values", "val", "content", "data", "v", "default", "old", "new", "before", "after", "input",
    "old_value", "new_value", "current_value", "default_value", "field_value", "param_value",
    "oldvalue", "newvalue", "currentvalue", "defaultvalue", "fieldvalue", "paramvalue",
))  # fmt: skip
_HOLDER_SPELLINGS: Final = _HOLDERS | {
    "Value", "Values", "oldValue", "newValue", "currentValue", "defaultValue", "fieldValue", "paramValue",
    "OldValue", "NewValue",
}  # fmt: skip


class SecretRedactor:
    """Replace secrets by name at any depth, and by shape inside text.

    Names count by their end: ``db_password`` is secret, ``password_policy`` is not. ``None``, booleans and empty
    strings are kept because they reveal nothing. The work is linear in the size of the input, and bounded.

    Args:
        keys: further names whose values are secret, in any spelling (``employeeNumber`` covers
            ``employee_number``).
        patterns: further regular expressions; the group named ``secret`` is replaced, or the whole match.

    Raises:
        ConfigurationError: a name without letters, or a pattern that does not compile.
    """

    __slots__ = ("_endings", "_gate", "_names", "_parameters", "_patterns", "_secret", "_stems")

    def __init__(self, *, keys: Iterable[str] = (), patterns: Iterable[str | re.Pattern[str]] = ()) -> None:
        names = strings(keys, parameter="keys", of="names")
        self._endings = tuple("".join(_words(name)) for name in names)
        self._patterns = tuple(
            _compiled(pattern) for pattern in instances(patterns, object, parameter="patterns")
        )
        self._stems = stem_pattern(names)
        self._gate = Prefilter((*STEMS, *(word for name in names for word in normalise(name))))
        self._secret: Memo[str, bool] = Memo(self._ends_in_secret, longest=_LONGEST_NAME)
        self._parameters: Memo[str, str] = Memo(self._parameter, longest=_LONGEST_NAME)
        self._names: dict[str, tuple[str, bool]] = {}

    def is_secret_key(self, name: object) -> bool:
        """Return whether values under this name are secret."""
        if isinstance(name, bytes):
            name = name[-_LONGEST_NAME:].decode("utf-8", "replace")
        return isinstance(name, str) and self._secret[name[-_LONGEST_NAME:]]

    def redact_text(self, text: str) -> str:
        """Return the text with every secret in it replaced by ``[REDACTED]``.

        Truncated at a million characters, and after several hundred places where a secret may occur.
        """
        if len(text) > _MAX_CHARACTERS:
            text = text[: _MAX_CHARACTERS - 1] + CUT
        # Nearly every text contains nothing suspicious, and needs no step limit.
        suspects = self._gate.suspects(text)
        if suspects is None and not self._patterns:
            return text
        effort = StepLimit()
        effort.spend(_search_steps(text))
        return self._careful_text(text, suspects, effort)

    def redact(self, value: object) -> object:
        """Return a copy of the structure without secrets; mappings become ``dict``, sets become ``list``.

        Containers are truncated at ten thousand members, at 64 levels, and when the total work takes too long (a
        few milliseconds); ``…`` marks the place.
        """
        return _RedactionWalk(self, StepLimit()).value(value, _MAX_DEPTH)

    def _text(self, text: str, effort: StepLimit) -> str:
        if len(text) > _MAX_CHARACTERS:
            text = text[: _MAX_CHARACTERS - 1] + CUT
        if len(text) < _SHORTEST and not self._patterns:
            return text
        left = effort.spend(_search_steps(text))
        suspects = self._gate.suspects(text)
        if suspects is None and not self._patterns:
            return text
        return self._careful_text(text, suspects, effort) if left else CUT

    def _careful_text(self, text: str, suspects: SuspectedSecrets | None, effort: StepLimit) -> str:
        effort.begin_text(len(text))
        effort.spend(10 if text.isascii() else 10 + (len(text) >> 4))
        if suspects is not None:
            if suspects.forms:
                text = redact_patterns(text, suspects.forms, effort)
            if suspects.cards:
                effort.next_pass()
                text = redact_cards(text, effort)
            if suspects.named:
                effort.next_pass()
                text = redact_named(text, self._stems, self.is_secret_key, effort)
        for pattern in self._patterns:
            effort.next_pass()
            text = replace_matches(text, pattern.finditer(text), _without_group, effort, steps=6)
        effort.end_of_text()
        return text

    def _name(self, name: str, effort: StepLimit) -> tuple[str, bool]:
        """Return a name as it may be shown, and whether its value is secret."""
        known = self._names.get(name)
        if known is None:
            effort.spend(8)
            known = (self._text(name, effort), self.is_secret_key(name))
            if effort.left > 0 and len(name) <= _LONGEST_NAME:
                if len(self._names) >= _MOST_NAMES:
                    self._names.clear()
                self._names[name] = known
        return known

    def _ends_in_secret(self, name: str) -> bool:
        return ends_in_secret(name, extra_endings=self._endings)

    def redact_query(self, query_string: str) -> str:
        """Return the query string with the secret parameters replaced (also OAuth ``code``, signatures)."""
        if not query_string:
            return query_string
        effort = StepLimit(len(query_string))
        parts = [part.partition("=") for part in query_string.split("&", _MOST_PARAMETERS)]
        oauth = any(name == "code" for name, _, _ in parts)
        if len(parts) > _MOST_PARAMETERS:
            parts[-1] = (CUT, "", "")
        shown: list[str] = []
        for name, equals, value in parts:
            if not effort.spend(3):
                shown.append(CUT)
                break
            shown.append(
                f"{name}{equals}{self._query_value(name, value, effort, oauth=oauth)}"
                if value
                else name + equals
            )
        return "&".join(shown)

    def redact_url(self, url: str) -> str:
        """Return the URL without credentials, secret parameters and webhook paths."""
        rest, hash_mark, fragment = url.partition("#")
        base, question, query = rest.partition("?")
        if "@" in fragment or ("@" in query and "@" not in base):
            return self.redact_text(url)
        fragment = self.redact_query(fragment) if "=" in fragment else self.redact_text(fragment)
        return f"{self.redact_text(base)}{question}{self.redact_query(query)}{hash_mark}{fragment}"

    def _query_value(self, name: str, value: str, effort: StepLimit, *, oauth: bool) -> str:
        name = name[-_LONGEST_NAME:]
        # Every escape costs work: 100,000 of them would take as many calls.
        escapes = name.count("%") + value.count("%")
        if escapes > effort.left:
            return CUT
        effort.spend(escapes if name in self._parameters else escapes + _NAME_EFFORT)
        parameter = self._parameters[name]
        if parameter == _HIDDEN or (oauth and parameter == "state"):
            return REDACTED
        if len(value) < _SHORTEST and value.isalnum() and not self._patterns:
            return value
        plain = _unescaped(value)
        if "%" in value or "+" in value:
            effort.spend(_UNESCAPE_EFFORT)
        clean = self._text(plain, effort)
        if clean == plain:
            return value
        return clean if plain == value else REDACTED

    def _parameter(self, name: str) -> str:
        """Return ``_HIDDEN`` for a secret parameter, else its name without separators."""
        plain = _unescaped(name)
        joined = "".join(normalise(plain))
        return _HIDDEN if self.is_secret_key(plain) or joined in QUERY_NAMES else joined

    def __repr__(self) -> str:
        return f"{type(self).__name__}(extra_keys={len(self._endings)}, extra_patterns={len(self._patterns)})"


def _search_steps(text: str) -> int:
    """Return the cost of the prefilter."""
    return (5 if text.isascii() else 7) + (len(text) >> 7)


def _unescaped(text: str) -> str:
    from urllib.parse import unquote_to_bytes

    text = text.replace("+", " ")
    if "%" not in text:
        return text
    # In one piece: ``unquote`` handles every run of ASCII separately, and there may be one for each escape.
    return unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def _words(name: object) -> list[str]:
    words = normalise(name) if isinstance(name, str) else []
    if not words:
        raise ConfigurationError(
            f"keys must be names with at least one letter, not {type(name).__name__}", parameter="keys"
        )
    return words


def _compiled(pattern: object) -> re.Pattern[str]:
    try:
        return re.compile(cast(str, pattern))
    except (re.error, TypeError) as error:
        raise ConfigurationError(
            f"patterns must be regular expressions for text: {error}", parameter="patterns"
        ) from None


def _without_group(match: re.Match[str]) -> str:
    if "secret" not in match.re.groupindex or match["secret"] is None:
        return REDACTED
    start, end = match.span("secret")
    offset = match.start()
    return f"{match[0][: start - offset]}{REDACTED}{match[0][end - offset :]}"


class RecordRedactor:
    """Redactor for the parts of one record, which share the step limit of one text."""

    __slots__ = ("_effort", "_redactor")

    def __init__(self, redactor: SecretRedactor) -> None:
        self._redactor = redactor
        self._effort = StepLimit()

    def redact(self, value: object) -> object:
        """Like ``SecretRedactor.redact``; after the step limit, a container keeps its type and little else."""
        self._effort.next_pass()
        return _RedactionWalk(self._redactor, self._effort).value(value, _MAX_DEPTH)

    def redact_text(self, text: str) -> str:
        """Like ``SecretRedactor.redact_text``; after the step limit, text that may hold a secret is dropped."""
        return self._redactor._text(text, self._effort)  # noqa: SLF001 - same module


def encoded_if_clean(
    redactor: SecretRedactor, fields: Mapping[str, object], encode: Callable[[object], bytes]
) -> bytes | None:
    """Return small plain data as JSON, or ``None`` if ``redact`` might change it.

    The prefilter judges the JSON text, which contains every name and every value: one search instead of one for
    each of them.
    """
    is_secret = redactor._secret  # noqa: SLF001 - same module
    containers: list[Any] = [fields]
    members = characters = 0
    for container in containers:
        members += len(container)
        # Few containers are never nested too deeply, and a cycle has many.
        if members > _MOST_SMALL_MEMBERS or len(containers) > _MOST_SMALL_CONTAINERS:
            return None
        values: Iterable[Any] = container
        if type(container) is dict:
            mapping: dict[object, Any] = container  # pyright: ignore[reportUnknownVariableType]  # may be anything
            values = mapping.values()
            for name in mapping:
                if type(name) is not str or len(name) > _LONGEST_NAME:
                    return None
                # A label beside a value may be a secret name, as the first of a pair may be (below).
                if is_secret[name] or name in _HOLDER_SPELLINGS:
                    return None
                characters += len(name)
        elif len(container) == 2 and type(container[0]) is str and redactor.is_secret_key(container[0]):
            return None
        for value in values:
            kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # as above
            if kind is str:
                characters += len(value)
                # An option, whose value may be the next item, or too much.
                if value[:2] == "--" or characters > _MOST_SMALL_CHARACTERS:
                    return None
            elif kind is dict or kind is list or kind is tuple:
                containers.append(value)
            elif not (kind is int or kind is bool or value is None) and (
                kind is not float or value - value != 0.0  # NaN or infinite
            ):
                return None
    if characters > _MOST_SMALL_CHARACTERS or redactor._patterns or not fields:  # noqa: SLF001 - as above
        return None
    try:
        encoded = encode(fields)
    except Exception:  # noqa: BLE001 - surrogates and large numbers, which the fast encoder rejects
        return None
    # An escape may separate the parts of a secret.
    text = encoded.decode()
    return None if "\\" in text or redactor._gate.suspects(text) is not None else encoded  # noqa: SLF001 - as above


@cache
def default_redactor() -> SecretRedactor:
    """Return the default redactor, used wherever none is given."""
    return SecretRedactor()


class _RedactionWalk:
    """Recursive redaction of one structure."""

    __slots__ = ("effort", "path", "redactor")

    def __init__(self, redactor: SecretRedactor, effort: StepLimit) -> None:
        self.redactor = redactor
        self.effort = effort
        self.path: set[int] = set()

    def value(self, value: object, depth: int) -> object:
        if not self.effort.spend(1):
            return CUT
        kind = type(value)
        if kind not in _CONTAINERS:
            if isinstance(value, str):
                return self.redactor._text(value, self.effort)  # noqa: SLF001 - same module
            if isinstance(value, _PLAIN):
                return value
            if isinstance(value, int):
                return REDACTED if SHORTEST_CARD <= value < 10**19 and is_card(str(int(value))) else value
            if not isinstance(value, (Mapping, list, tuple, AbstractSet)):
                return self.leaf(value)
        container = cast("_Container", value)
        if depth == 0 or id(container) in self.path:
            return CUT
        self.path.add(id(container))
        try:
            return self.container(container, depth - 1)
        finally:
            self.path.discard(id(container))

    def container(self, value: _Container, depth: int) -> object:
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        if isinstance(value, tuple):
            names = getattr(value, "_fields", None)
            if names:
                return self.mapping(dict(zip(names, value, strict=False)), depth)
        if len(value) == 2 and not isinstance(value, AbstractSet) and isinstance(value[0], (str, bytes)):
            pair = (self.value(value[0], depth), self.member(value[0], value[1], depth))
            return pair if isinstance(value, tuple) else list(pair)
        members: list[object] = []
        option = ""
        for member in islice(value, _MAX_MEMBERS):
            if self.effort.left <= 0:
                break
            if option:
                self.effort.spend(_NAME_EFFORT)
            members.append(self.member(option, member, depth) if option else self.value(member, depth))
            # An argument list: the value of an option is the next item.
            option = member if isinstance(member, str) and member.startswith("--") else ""
        if len(value) > len(members):
            members.append(CUT)
        return tuple(members) if isinstance(value, tuple) else members

    def mapping(self, value: Mapping[object, object], depth: int) -> dict[object, object]:
        clean: dict[object, object] = {}
        names = UniqueNames()
        label = self.label(value)
        for name, member in islice(value.items(), _MAX_MEMBERS):
            if self.effort.left <= 0:
                break
            if not isinstance(name, str):
                clean[name] = self.member(name, member, depth)
                continue
            self.effort.spend(1)
            shown, secret = self.redactor._name(name, self.effort)  # noqa: SLF001 - same module
            if shown in clean:
                shown = names.free(shown, clean)
            if secret:
                clean[shown] = REDACTED if reveals_secret(member, name) else member
            elif label and name.lower() in _HOLDERS:
                clean[shown] = self.member(label, member, depth)
            else:
                clean[shown] = self.value(member, depth)
        if len(value) > len(clean):
            clean[CUT] = CUT
        return clean

    def label(self, value: Mapping[object, object]) -> object:
        """Return the secret name in ``{"name": "password", "value": …}``, or an empty string."""
        self.effort.spend(8)
        if not value.keys() & _HOLDER_SPELLINGS:
            return ""
        self.effort.spend(12)
        for key in value.keys() & _LABELS:
            name = value[key]
            if key == "loc" and isinstance(name, (list, tuple)) and name:
                name = cast("list[object]", name)[-1]  # pydantic: location of the value
            if not isinstance(name, (str, bytes)) or not self.redactor.is_secret_key(name):
                continue
            # "path" only in a JSON Patch (RFC 6902), not a page path; "type" only if it is a kind of password.
            if (key != "path" or "op" in value) and (key != "type" or name in _PASSWORD_TYPES):
                return name
        return ""

    def member(self, name: object, value: object, depth: int) -> object:
        if not self.redactor.is_secret_key(name):
            return self.value(value, depth)
        shown = name if isinstance(name, str) else ""
        return REDACTED if reveals_secret(value, shown) else value

    def leaf(self, value: object) -> object:
        if isinstance(value, (bytes, bytearray)):
            text = value.decode("utf-8", "backslashreplace")
            clean = self.redactor._text(text, self.effort)  # noqa: SLF001 - same module
            return value if clean == text else clean
        return value

"""Names of the fields in a log line, computed once per attribute and cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.plain_data import cut
from mks_hardening.logging.formatting._schemas import Schema
from mks_hardening.protocols import Redactor

__all__ = ["FieldNames"]

_PREFIX: Final = "extra_"
_LONGEST_NAME: Final = 64


class FieldNames(Memo[str, tuple[str, bool]]):
    """Map each record attribute to its field name (empty if hidden) and whether its value is secret.

    An attribute with the name of a canonical or static field gets a prefix, so that it cannot impersonate that
    field and is not lost. Names that already have the prefix get another one: two attributes never share a name.

    Args:
        schema: names of the canonical fields.
        rename: field names chosen by the user.
        static: names of the static fields.
        hidden: attributes that are never logged.
        redactor: redacts secrets in the names themselves.
        is_secret_key: returns whether values with a name are secret.
    """

    __slots__ = ("_hidden", "_is_secret_key", "_redactor", "_rename", "_schema", "look_for_del", "reserved")

    def __init__(
        self,
        schema: Schema,
        *,
        rename: Mapping[str, str],
        static: Iterable[str],
        hidden: frozenset[str],
        redactor: Redactor,
        is_secret_key: Callable[[str], bool],
    ) -> None:
        super().__init__(self._name_of, entries=1024, longest=128)
        self._schema = schema
        self._rename = rename
        self._hidden = hidden
        self._redactor = redactor
        self._is_secret_key = is_secret_key
        self.reserved: frozenset[str] = frozenset(map(self.renamed, (*schema.canonical(), *static)))
        #: Set by the first name with DEL, the only unsafe ASCII character that the fast encoder does not escape.
        self.look_for_del: bool = False

    def renamed(self, name: str) -> str:
        """Return the name that the user has chosen for a field."""
        return self._rename.get(name, name)

    def _name_of(self, attribute: str) -> tuple[str, bool]:
        if attribute in self._hidden or attribute.startswith("_"):
            return "", True
        name = self.renamed(self._schema.renames.get(attribute, attribute))
        bare = name
        while bare.startswith(_PREFIX):
            bare = bare[len(_PREFIX) :]
        if bare in self.reserved and attribute not in self._schema.renames:
            name = f"{_PREFIX}{name}"
        name = self._redactor.redact_text(cut(name, _LONGEST_NAME))
        self.look_for_del |= "\x7f" in name
        return name, self._is_secret_key(attribute)

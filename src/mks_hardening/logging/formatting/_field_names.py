"""What the fields of a line are called: worked out once for each attribute and kept."""

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
    """For each record attribute its name in the line (empty: it is not shown) and whether its value is hidden.

    A name that belongs to a canonical or static field gets a prefix, so that nothing can pose as such a field and
    nothing is lost. Names that look prefixed already get one more: two attributes never share a name.

    Args:
        schema: names of the canonical fields.
        rename: other names, as the user wants them.
        static: names of the static fields.
        hidden: attributes that are never shown.
        redactor: keeps secrets out of the names themselves.
        is_secret_key: tells whether values under a name are secret.
    """

    __slots__ = ("_hidden", "_is_secret_key", "_redactor", "_rename", "_schema", "look_for_del", "taken")

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
        self.taken: frozenset[str] = frozenset(map(self.renamed, (*schema.canonical(), *static)))
        #: Set by the first name with DEL in it: the one unsafe ASCII character that the fast encoder lets through.
        self.look_for_del: bool = False

    def renamed(self, name: str) -> str:
        """The name the user wants for a field."""
        return self._rename.get(name, name)

    def _name_of(self, attribute: str) -> tuple[str, bool]:
        if attribute in self._hidden or attribute.startswith("_"):
            return "", True
        name = self.renamed(self._schema.renames.get(attribute, attribute))
        bare = name
        while bare.startswith(_PREFIX):
            bare = bare[len(_PREFIX) :]
        if bare in self.taken and attribute not in self._schema.renames:
            name = f"{_PREFIX}{name}"
        name = self._redactor.redact_text(cut(name, _LONGEST_NAME))
        self.look_for_del |= "\x7f" in name
        return name, self._is_secret_key(attribute)

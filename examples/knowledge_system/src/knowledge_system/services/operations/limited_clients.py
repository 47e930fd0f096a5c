"""Whose hits came close to a limit: the account and the client, as far as the counted key names them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple, Self

__all__ = ["Whose"]

_USER: Final = re.compile(r"user[: ]([0-9]{1,12})")
_BY_CLIENT_AND_USER: Final = "auth_2fa_verify"
"""Its keys end in the id of a user; those of passwords end in what was typed as a name, which is never shown."""


class Whose(NamedTuple):
    """A group of limits, a user id and an address or network; empty where the key does not name one."""

    group: str
    user: str
    client: str

    @classmethod
    def of(cls, group: str, key: str) -> Self:
        """What may be shown of a key."""
        if found := _USER.fullmatch(key):
            return cls(group, found[1], "")
        first, _, rest = key.removeprefix("client:").partition(" ")
        by_user = group == _BY_CLIENT_AND_USER and rest.isdecimal() and rest.isascii()
        return cls(group, rest[:12] if by_user else "", first if _is_network(first) else "")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From what ``text`` gave."""
        return cls(*text.split("\t"))

    @property
    def text(self) -> str:
        """As one text, to be counted and kept."""
        return "\t".join(self)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True

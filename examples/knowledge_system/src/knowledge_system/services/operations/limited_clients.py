"""Users and clients close to a rate limit, as far as the limiter's key names them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple, Self

_USER: Final = re.compile(r"user[: ]([0-9]{1,12})")
_BY_CLIENT_AND_USER: Final = "auth_2fa_verify"
"""Its keys end in a user id; password keys end in the name as typed, which is never shown."""


class LimitedClient(NamedTuple):
    """A rate-limit group, a user id and an address or network; empty if the key does not contain it."""

    group: str
    user: str
    client: str

    @classmethod
    def of(cls, group: str, key: str) -> Self:
        """Extract the displayable parts of a key."""
        if found := _USER.fullmatch(key):
            return cls(group, found[1], "")
        first, _, rest = key.removeprefix("client:").partition(" ")
        by_user = group == _BY_CLIENT_AND_USER and rest.isdecimal() and rest.isascii()
        return cls(group, rest[:12] if by_user else "", first if _is_network(first) else "")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the result of ``text``."""
        return cls(*text.split("\t"))

    @property
    def text(self) -> str:
        """Text form, for counting and storing."""
        return "\t".join(self)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True

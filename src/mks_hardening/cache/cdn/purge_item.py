"""What a CDN is asked to purge, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, TypedDict, get_args
from urllib.parse import urlsplit

__all__ = ["PurgeItem", "URLVariant"]

Kind: TypeAlias = Literal["urls", "tags", "prefixes", "hosts", "everything"]

_TAG: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_PREFIX: Final = re.compile(
    r"(?=.{1,1024}\Z)[A-Za-z0-9.-]+\.[A-Za-z0-9-]+(?:/[\x21\x22\x24-\x3e\x40-\x7e]*)?"
)
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_FIELD_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")


class URLVariant(TypedDict):
    """A variant of a URL, for CDNs that store several: those for requests with these header fields.

    Attributes:
        url: the URL.
        headers: header fields and their values.
    """

    url: str
    headers: Mapping[str, str]


class PurgeItem(NamedTuple):
    """One item to purge.

    Attributes:
        kind: ``urls``, ``tags``, ``prefixes``, ``hosts`` or ``everything``.
        value: the URL, tag, prefix or host; ``*`` for everything.
        headers: names and values of the header fields of one variant of a URL; empty: the URL itself.
    """

    kind: Kind
    value: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def error(self) -> str | None:
        """Why no CDN can purge it; None if nothing is wrong."""
        parts: tuple[object, ...] = (self.kind, self.value, self.headers)
        match parts:
            case ("everything", "*", ()):
                return None
            case ("urls", str(value), tuple()):
                if not _is_url(value):
                    return "a URL must be absolute, http or https, without credentials, fragment and spaces"
                return _field_error(self.headers)
            case ("tags", str(value), ()):
                return None if _TAG.fullmatch(value) else "a tag must be 1 to 1024 printable ASCII characters"
            case ("prefixes", str(value), ()):
                return None if _PREFIX.fullmatch(value) else "a prefix must be host/path without a scheme"
            case ("hosts", str(value), ()):
                return None if _HOST.fullmatch(value) else "a host must be a name with a dot, without scheme"
            case _:
                return f"the kind must be one of {', '.join(get_args(Kind))}"


def _field_error(headers: tuple[object, ...]) -> str | None:
    for field in headers:
        match field:
            case (str(name), str(value)) if _FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value):
                continue
            case _:
                return "headers must be names and values of header fields in printable ASCII"
    return None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            # A URL with a password would be sent to the service and appear in `failed`.
            and parts.username is None
            # Never sent to a server, so nothing is cached under it: the purge would succeed without effect.
            and not parts.fragment
            and text.isprintable()
            and " " not in text
        )
    except ValueError:
        return False

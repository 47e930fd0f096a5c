"""Validate the items to purge, and split them into requests that the service accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from mks_hardening._core.checks import strings
from mks_hardening.exceptions import ConfigurationError

__all__ = ["PurgeBatch", "batches_of", "everything"]

_BATCH: Final = 100  # Cloudflare's limit per request on every plan
_TAG: Final = re.compile(
    r"[\x21-\x2b\x2d-\x7e]{1,1024}"
)  # no whitespace, and no comma: it is the separator of the header field
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_PREFIX: Final = re.compile(
    r"(?=.{1,1024}\Z)[A-Za-z0-9.-]+\.[A-Za-z0-9-]+(?:/[\x21\x22\x24-\x3e\x40-\x7e]*)?"
)


class PurgeBatch(NamedTuple):
    items: tuple[str, ...]
    body: dict[str, object]


def everything(kinds: dict[str, Iterable[str] | None]) -> list[PurgeBatch]:
    if any(items is not None for items in kinds.values()):
        raise ConfigurationError(
            "purge_everything cannot be combined with other arguments", parameter="purge_everything"
        )
    return [PurgeBatch(("*",), {"purge_everything": True})]


def batches_of(kinds: dict[str, Iterable[str] | None]) -> Iterator[PurgeBatch]:
    """Yield all batches of all kinds; everything is validated before the first one."""
    for kind, given in kinds.items():
        items = tuple(dict.fromkeys(strings(given or (), parameter=kind)))
        for item in items:
            if not _CHECKS[kind](item):
                raise ConfigurationError(f"{kind} contains an item that cannot be purged", parameter=kind)
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            yield PurgeBatch(part, {kind: list(part)})


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


_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    "files": _is_url,
    "tags": _TAG.fullmatch,
    "prefixes": _PREFIX.fullmatch,
    "hosts": _HOST.fullmatch,
}

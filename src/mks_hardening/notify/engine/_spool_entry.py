"""Spool entries: file name, destination and content of an alert."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

from mks_hardening._core.codec import json_dumps
from mks_hardening.notify.engine._alert import Alert

__all__ = ["MAX_BYTES", "EntryNames", "decoded", "encoded"]

# The largest alert has about 85,000 characters.
MAX_BYTES: Final = 1_048_576
_VERSION: Final = 1


class EntryNames:
    """Names of the files of one destination: kind, time, id, and a digest of kind and address.

    The digest is keyed with the id of the alert. A name therefore reveals neither the address, which may be a
    secret, nor which entries have the same address; but with the address, each entry can be recognised by its name
    alone.

    Args:
        kind: kind of the destination, for example ``slack``.
        destinations: identifiers of the destination; new entries use the first, and entries of the others belong to
            it too.
    """

    __slots__ = ("_addresses", "_kind")

    def __init__(self, kind: str, destinations: Sequence[str]) -> None:
        self._kind = kind
        self._addresses = [f"{kind}\0{one}".encode("utf-8", "surrogatepass") for one in destinations]

    def of(self, alert: Alert) -> str:
        """Return the file name of an alert."""
        return f"{self._beginning(alert)}-{_digest(self._addresses[0], alert.id)}.json"

    def belongs(self, name: str) -> bool:
        """Return whether an entry, including a claimed one, is for this destination."""
        parts = _NAME.fullmatch(name)
        return parts is not None and parts["digest"] in self._digests(parts["id"])

    def checked(self, name: str, alert: Alert) -> Alert:
        """Return the alert if it matches the name of its entry.

        Raises:
            ValueError: an entry of another destination was renamed or copied to a name of this one.
        """
        if name not in {f"{self._beginning(alert)}-{digest}.json" for digest in self._digests(alert.id)}:
            raise ValueError("the name of the entry is that of another alert")
        return alert

    def is_of_kind(self, name: str) -> bool:
        """Return whether an entry is for any destination of this kind."""
        return name.startswith(f"{self._kind}-")

    def _beginning(self, alert: Alert) -> str:
        return f"{self._kind}-{int(alert.created * 1000):015d}-{alert.id}"

    def _digests(self, alert_id: str) -> list[str]:
        return [_digest(address, alert_id) for address in self._addresses]


def _digest(address: bytes, alert_id: str) -> str:
    return blake2b(address, key=alert_id.encode()[:64], digest_size=8).hexdigest()


_NAME: Final = re.compile(r".+-\d{15,}-(?P<id>[^-]+)-(?P<digest>[0-9a-f]{16})\.json(?:\..+)?", re.ASCII)


def encoded(alert: Alert) -> bytes:
    """Serialize an alert."""
    return json_dumps({"version": _VERSION, **alert._asdict()})


def decoded(content: bytes) -> Alert:
    """Deserialize an alert.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, RecursionError: the content is not an alert, or has another
            version.
    """
    data: Any = json.loads(content)
    if data["version"] != _VERSION:
        raise ValueError("written by another version")
    fields = {str(name): str(value) for name, value in data["fields"].items()}
    return Alert(**{name: convert(data[name]) for name, convert in _FIELDS.items()}, fields=fields)


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": str, "fingerprint": str, "created": float, "level": str, "logger": str, "message": str, "place": str,
    "exception": str, "request_id": str, "host": str, "environment": str, "repeats": int, "since": float,
    "digest": bool,
}  # fmt: skip

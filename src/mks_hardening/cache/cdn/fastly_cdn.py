"""Purge a Fastly service."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from string import ascii_letters, digits
from typing import Final
from urllib.parse import quote, urlsplit

from mks_hardening._core.backend.http_session import check_url
from mks_hardening._core.checks import boolean
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.codec import Stored
from mks_hardening.cache.cdn._purge_calls import PurgeCall, PurgeCalls, batches
from mks_hardening.cache.cdn.base_cdn import BaseCDN
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["FastlyCDN"]

_BATCH: Final = 256  # Fastly's limit of surrogate keys per request
# Validated, as it becomes part of the path of a request that carries the token.
_SERVICE: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_ESCAPE: Final = re.compile(r"%(.{0,2})")
_UNRESERVED: Final = frozenset(f"{ascii_letters}{digits}-._~".encode())
_DELIMITERS: Final = "/?:@!$&'()*+,;=-._~%"


class FastlyCDN(BaseCDN):
    """Purges one Fastly service: URLs, tags (surrogate keys) or everything.

    Fastly has no purge by prefix or host, and a purged URL loses all its variants; name tags in ``Surrogate-Key``
    instead. Each URL takes a request, 256 tags of usual length take one.

    Args:
        service_id: letters and digits.
        api_token: a token with no scope but ``purge_select`` on this service (``purge_all`` for everything); never
            logged or shown.
        soft: marks responses as stale instead of removing them, so that ``stale-while-revalidate`` and
            ``stale-if-error`` apply to them. Everything cannot be purged like this.
        timeout: seconds for each request.
        base_url: URL of the API; only tests need another one.
        deadline: maximum seconds for one purge with all its requests and waits.
        sleep: function that waits between attempts.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        service_id: str,
        *,
        api_token: str,
        soft: bool = False,
        timeout: float | timedelta = 10,
        base_url: str = "https://api.fastly.com",
        deadline: float | timedelta = 60,
        sleep: Callable[[float], object] = time.sleep,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not isinstance(service_id, str) or not _SERVICE.fullmatch(service_id):
            raise ConfigurationError("service_id must be letters and digits", parameter="service_id")
        self._base = check_url(base_url, parameter="base_url").rstrip("/")
        self._service_id = service_id
        self._soft = boolean(soft, parameter="soft")
        mode = {"Fastly-Soft-Purge": "1"} if self._soft else {}
        self._calls = PurgeCalls(
            lambda token: {"Fastly-Key": token, "Accept": "application/json", **mode},
            api_token=api_token,
            error_of=_error_of,
            reset_field="fastly-ratelimit-reset",
            timeout=timeout,
            deadline=deadline,
            sleep=sleep,
            clock=clock,
        )

    def refusal(self, item: PurgeItem) -> str | None:
        """Return why Fastly cannot purge an item, or None if it can."""
        match item.kind:
            case "prefixes" | "hosts":
                return "Fastly has no purge by prefix or host; name a tag in Surrogate-Key and purge it"
            case "urls" if item.headers:
                return "Fastly has no purge of one variant; purge the URL, which removes all of them"
            case "urls":
                return _url_refusal(item.value)
            case "everything" if self._soft:
                return (
                    "Fastly cannot purge everything softly; purge a tag that all responses have, "
                    "or use a FastlyCDN with soft=False"
                )
            case _:
                return None

    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        """Purge checked items; errors of the service are part of the result."""
        service = f"{self._base}/service/{self._service_id}"
        calls = [
            PurgeCall((item,), f"{service}/purge_all", None) for item in items if item.kind == "everything"
        ]
        calls += (
            PurgeCall((item,), f"{self._base}/purge/{_path_of(item.value)}", None)
            for item in items
            if item.kind == "urls"
        )
        tags = [item for item in items if item.kind == "tags"]
        # The response repeats the tags, some characters escaped, and 64 KiB of it are read.
        most = min(_BATCH, 60_000 // (2 * max((len(tag.value) for tag in tags), default=0) + 64))
        calls += (
            PurgeCall(batch, f"{service}/purge", {"surrogate_keys": [item.value for item in batch]})
            for batch in batches(tags, most)
        )
        return self._calls.send(calls)

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._calls.close()

    def __repr__(self) -> str:
        return f"FastlyCDN({self._service_id!r}{', soft=True' if self._soft else ''})"


def _url_refusal(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.netloc.isascii():
        return "a host must be ASCII (xn--…), as browsers send it"
    # The URL becomes the end of a path of the API: dots would lead to another of its operations.
    segments = (parts.netloc + parts.path).lower().replace("%2e", ".").split("/")
    if not {".", ".."}.isdisjoint(segments):
        return "a URL must not contain . or .. as the host or as a segment"
    for escape in _ESCAPE.findall(url):
        # Clients of HTTP normalise these on the way, and Fastly would purge another URL than was cached.
        if not re.fullmatch(r"[0-9A-F]{2}", escape) or int(escape, 16) in _UNRESERVED:
            return "escapes must be upper-case hexadecimal (%E6), and not for letters, digits or -._~"
    return None


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe=_DELIMITERS)
    return f"{parts.netloc}{path}{'?' + quote(parts.query, safe=_DELIMITERS) if parts.query else ''}"


def _error_of(call: PurgeCall, status: int, content: Stored) -> str | None:
    match content:
        case {"status": "ok"} if status == 200 and call.body is None:
            return None
        case {**keys} if status == 200 and call.body is not None and all(i.value in keys for i in call.items):
            return None
        case {"msg": str(message)}:
            return message[:200]
        case _:
            return "not successful"

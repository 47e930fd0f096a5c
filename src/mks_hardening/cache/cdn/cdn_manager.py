"""Purge a Cloudflare zone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from mks_hardening._core.backend.http_session import check_url
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.codec import Stored
from mks_hardening.cache.cdn._purge_calls import PurgeCall, PurgeCalls, batches
from mks_hardening.cache.cdn.base_cdn import BaseCDN
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["CDNManager"]

_BATCH: Final = 100  # Cloudflare's limit per request on every plan
# Validated, as it becomes part of the path of a request that carries the token.
_ZONE: Final = re.compile(r"[0-9a-f]{32}")
_FIELDS: Final = {"urls": "files", "tags": "tags", "prefixes": "prefixes", "hosts": "hosts"}


class CDNManager(BaseCDN):
    """Purges one Cloudflare zone.

    Args:
        zone_id: 32 hexadecimal digits.
        api_token: a token with no permission but "Cache Purge" on this zone; never logged or shown.
        timeout: seconds for each request.
        base_url: URL of the API; only tests need another one.
        deadline: maximum seconds for one purge with all its batches and waits.
        sleep: function that waits between attempts.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        zone_id: str,
        *,
        api_token: str,
        timeout: float | timedelta = 10,
        base_url: str = "https://api.cloudflare.com/client/v4",
        deadline: float | timedelta = 60,
        sleep: Callable[[float], object] = time.sleep,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not isinstance(zone_id, str) or not _ZONE.fullmatch(zone_id):
            raise ConfigurationError(
                "zone_id must be 32 hexadecimal digits in lower case", parameter="zone_id"
            )
        self._url = f"{check_url(base_url, parameter='base_url').rstrip('/')}/zones/{zone_id}/purge_cache"
        self._zone_id = zone_id
        self._calls = PurgeCalls(
            lambda token: {"Authorization": f"Bearer {token}"},
            api_token=api_token,
            error_of=_error_of,
            timeout=timeout,
            deadline=deadline,
            sleep=sleep,
            clock=clock,
        )

    def refusal(self, item: PurgeItem) -> str | None:
        """Return why Cloudflare cannot purge an item, or None if it can."""
        if item.kind == "tags" and "," in item.value:
            return "a tag must not contain a comma, which separates the tags in Cache-Tag"
        return None

    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        """Purge checked items in batches; errors of the service are part of the result."""
        calls = [
            PurgeCall((item,), self._url, {"purge_everything": True})
            for item in items
            if item.kind == "everything"
        ]
        for kind, field in _FIELDS.items():
            # Lists of URLs and lists of variants: the API does not document mixed ones.
            for has_headers in (False, True):
                some = (item for item in items if item.kind == kind and bool(item.headers) is has_headers)
                calls += (
                    PurgeCall(batch, self._url, {field: [_encoded(item) for item in batch]})
                    for batch in batches(some, _BATCH)
                )
        return self._calls.send(calls)

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._calls.close()

    def __repr__(self) -> str:
        return f"CDNManager({self._zone_id!r})"


def _encoded(item: PurgeItem) -> object:
    return {"url": item.value, "headers": dict(item.headers)} if item.headers else item.value


def _error_of(_call: PurgeCall, status: int, content: Stored) -> str | None:
    match content:
        case {"success": True} if status == 200:
            return None
        case {"errors": [{"code": code, "message": str(message)}, *_]}:
            return f"{message[:200]} ({code if isinstance(code, int) else 'no code'})"
        case _:
            return "not successful"

"""Purge a Cloudflare zone in batches, and report exactly which items failed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, NamedTuple

from mks_hardening._core.backend.http_session import HttpResponse, HttpSession, check_url
from mks_hardening._core.checks import function
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.codec import json_loads
from mks_hardening._core.durations import seconds
from mks_hardening._core.redaction.step_limit import REDACTED
from mks_hardening.cache.cdn._purge_batches import PurgeBatch, batches_of, everything
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, DecodeError
from mks_hardening.protocols import Clock

__all__ = ["CDNManager"]

_ATTEMPTS: Final = 3
_LONGEST_WAIT: Final = 10.0
_DEFAULT_RETRY_AFTER: Final = 30.0
"""Seconds until a retry is worthwhile if the service does not say."""
_LONGEST_ASKED: Final = 86_400.0
"""Maximum ``Retry-After`` to accept, in seconds: the header field may contain any number."""
# Validated, as it becomes part of the path of a request that carries the token.
_ZONE: Final = re.compile(r"[0-9a-f]{32}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{8,512}")


class CDNManager(Closing):
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
        if not isinstance(api_token, str) or not _TOKEN.fullmatch(api_token):
            raise ConfigurationError(
                "api_token must be printable ASCII without spaces", parameter="api_token"
            )
        self._url = f"{check_url(base_url, parameter='base_url').rstrip('/')}/zones/{zone_id}/purge_cache"
        self._zone_id = zone_id
        self._deadline = seconds(deadline, parameter="deadline", allow_zero=False)
        self._sleep = function(sleep, parameter="sleep")
        self._clock = given_clock(clock)
        # In a closure: code that shows this object's attributes must not show the token.
        self._hide: Callable[[str], str] = lambda text: text.replace(api_token, REDACTED)
        self._session = HttpSession("cdn", timeout=timeout, headers={"Authorization": f"Bearer {api_token}"})

    def purge_cache(
        self,
        urls: Iterable[str] | None = None,
        *,
        tags: Iterable[str] | None = None,
        prefixes: Iterable[str] | None = None,
        hosts: Iterable[str] | None = None,
        purge_everything: bool = False,
    ) -> PurgeResult:
        """Purge URLs, tags, prefixes and hosts, or the whole zone; errors of the service are returned, not raised.

        Args:
            urls: absolute http(s) URLs.
            tags: names from ``Cache-Tag``.
            prefixes: ``host/path`` without scheme.
            hosts: host names.
            purge_everything: exactly ``True``, and without other arguments.

        Raises:
            ConfigurationError: nothing to purge, or an item that cannot be purged; no request was sent.
        """
        kinds = {"files": urls, "tags": tags, "prefixes": prefixes, "hosts": hosts}
        # `is True`: a list intended for another parameter must not purge the whole zone.
        batches = everything(kinds) if purge_everything is True else list(batches_of(kinds))
        if not batches:
            raise ConfigurationError(
                "purge_cache requires urls, tags, prefixes, hosts or purge_everything=True"
            )
        return self._purge(batches)

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._session.close()

    def __repr__(self) -> str:
        return f"CDNManager({self._zone_id!r})"

    def _purge(self, batches: list[PurgeBatch]) -> PurgeResult:
        end = self._clock.monotonic() + self._deadline
        done: list[str] = []
        failed: list[str] = []
        errors: dict[str, None] = {}
        waits: list[float] = []
        skip_rest = False
        for batch in batches:
            error, skip_rest = (None, True) if skip_rest else self._send(batch.body, end)
            if error is None and not skip_rest:
                done += batch.items
                continue
            failed += batch.items
            if error is not None:
                errors[error.text] = None
                waits += [] if error.permanent else [error.wait or _DEFAULT_RETRY_AFTER]
        return PurgeResult(
            ok=not failed,
            done=tuple(done),
            failed=tuple(failed),
            errors=tuple(errors),
            retry_after=max(waits, default=None),
        )

    def _send(self, body: dict[str, object], end: float) -> tuple[_PurgeError | None, bool]:
        """Send a batch with retries; return its error, if any, and whether the remaining batches are pointless."""
        for attempt in range(1, _ATTEMPTS + 1):
            error = self._attempt(body)
            if error is None or error.permanent:
                return error, error is not None and error.affects_all
            wait = error.wait if error.wait is not None else 0.5 * 2**attempt
            # A Retry-After beyond the limit applies to all remaining batches: asking earlier only makes it longer.
            is_pointless = wait > _LONGEST_WAIT or self._clock.monotonic() + wait >= end
            if attempt == _ATTEMPTS or is_pointless:
                return error, is_pointless
            self._sleep(wait)
        raise AssertionError("the last attempt returns")

    def _attempt(self, body: dict[str, object]) -> _PurgeError | None:
        try:
            response = self._session.post(self._url, json=body)
        except BackendUnavailableError as error:
            return _PurgeError(f"not reachable ({error.reason})")
        text = _error_of(response, hide=self._hide)
        if text is None:
            return None
        if response.status >= 500 or response.status in {408, 429}:
            return _PurgeError(text, wait=_retry_after(response))
        return _PurgeError(text, permanent=True, affects_all=response.status in {401, 403, 404})


class _PurgeError(NamedTuple):
    """The error of one request."""

    text: str
    wait: float | None = None
    """Seconds to wait before a retry, as requested by the service."""
    permanent: bool = False
    affects_all: bool = False
    """Whether the zone or the token is refused, so that the other batches would fail too."""


def _error_of(response: HttpResponse, *, hide: Callable[[str], str]) -> str | None:
    """Return the error in a response, or None if its body reports success; ``hide`` removes the token."""
    try:
        content = json_loads(response.body)
    except DecodeError:
        return f"HTTP {response.status}: not a JSON response"
    match content:
        case {"success": True} if response.status == 200:
            return None
        case {"errors": [{"code": code, "message": str(message)}, *_]}:
            # Before truncating, which could leave a part of the token.
            shown = hide(message)[:200]
            return f"HTTP {response.status}: {shown} ({code if isinstance(code, int) else 'no code'})"
        case _:
            return f"HTTP {response.status}: not successful"


def _retry_after(response: HttpResponse) -> float | None:
    value = next((text for name, text in response.headers.items() if name.lower() == "retry-after"), "")
    # The date form (RFC 9110, 10.2.3) would need synchronised clocks.
    return min(_LONGEST_ASKED, float(value)) if value.isascii() and value.isdecimal() else None

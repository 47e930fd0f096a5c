"""Send purges to the HTTP API of a CDN: retries, ``Retry-After``, one deadline for all requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Final, NamedTuple

from mks_hardening._core.backend.http_session import HttpResponse, HttpSession
from mks_hardening._core.checks import function
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.codec import Stored, json_loads
from mks_hardening._core.durations import seconds
from mks_hardening._core.redaction.step_limit import REDACTED
from mks_hardening.cache.cdn.purge_item import PurgeItem
from mks_hardening.cache.cdn.purge_result import PurgeResult
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, DecodeError
from mks_hardening.protocols import Clock

__all__ = ["PurgeCall", "PurgeCalls", "batches"]

_ATTEMPTS: Final = 3
_LONGEST_WAIT: Final = 10.0
_DEFAULT_RETRY_AFTER: Final = 30.0
"""Seconds until a retry is worthwhile if the service does not say."""
_LONGEST_ASKED: Final = 86_400.0
"""Maximum ``Retry-After`` to accept, in seconds: the header field may contain any number."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{8,512}")


class PurgeCall(NamedTuple):
    """One request.

    Attributes:
        items: what it purges.
        url: where it is sent.
        body: JSON to send; None: no body.
    """

    items: tuple[PurgeItem, ...]
    url: str
    body: dict[str, object] | None


def batches(items: Iterable[PurgeItem], most: int) -> Iterator[tuple[PurgeItem, ...]]:
    """Split items into parts that the service accepts in one request."""
    rest = iter(items)
    while batch := tuple(islice(rest, most)):
        yield batch


class PurgeCalls(Closing):
    """The client of one API.

    Args:
        fields: returns the header fields for a token.
        api_token: the token; never logged or shown.
        error_of: returns the error message in a JSON body, or None if it reports success.
        reset_field: header field with the time of the next request, in seconds since 1970, if the API has one.
        timeout: seconds for each request.
        deadline: maximum seconds for one purge with all its requests and waits.
        sleep: function that waits between attempts.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is invalid.
        MissingDependencyError: requests is not installed.
    """

    def __init__(
        self,
        fields: Callable[[str], Mapping[str, str]],
        *,
        api_token: str,
        error_of: Callable[[PurgeCall, int, Stored], str | None],
        reset_field: str | None = None,
        timeout: float | timedelta,
        deadline: float | timedelta,
        sleep: Callable[[float], object],
        clock: Clock,
    ) -> None:
        if not isinstance(api_token, str) or not _TOKEN.fullmatch(api_token):
            raise ConfigurationError(
                "api_token must be printable ASCII without spaces", parameter="api_token"
            )
        self._error_of = error_of
        self._reset_field = reset_field
        self._deadline = seconds(deadline, parameter="deadline", allow_zero=False)
        self._sleep = function(sleep, parameter="sleep")
        self._clock = given_clock(clock)
        # In a closure: code that shows this object's attributes must not show the token.
        self._hide: Callable[[str], str] = lambda text: text.replace(api_token, REDACTED)
        self._session = HttpSession("cdn", timeout=timeout, headers=fields(api_token))

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._session.close()

    def send(self, calls: Sequence[PurgeCall]) -> PurgeResult:
        """Send requests one after another, and report exactly which items failed."""
        end = self._clock.monotonic() + self._deadline
        done: list[PurgeItem] = []
        failed: list[PurgeItem] = []
        errors: dict[str, None] = {}
        waits: list[float] = []
        skip_rest = False
        for call in calls:
            error, skip_rest = (None, True) if skip_rest else self._send(call, end)
            if error is None and not skip_rest:
                done += call.items
                continue
            failed += call.items
            if error is not None:
                errors[error.text] = None
                waits += [] if error.permanent else [error.wait or _DEFAULT_RETRY_AFTER]
        return PurgeResult.of_items(
            done=done, failed=failed, errors=errors, retry_after=max(waits, default=None)
        )

    def _send(self, call: PurgeCall, end: float) -> tuple[_PurgeError | None, bool]:
        """Send a request with retries; return its error, if any, and whether the remaining ones are pointless."""
        if self._clock.monotonic() >= end:
            return _PurgeError(f"not sent within the deadline of {self._deadline:g} seconds", wait=1.0), True
        for attempt in range(1, _ATTEMPTS + 1):
            error = self._attempt(call)
            if error is None or error.permanent:
                return error, error is not None and error.affects_all
            wait = error.wait if error.wait is not None else 0.5 * 2**attempt
            # A Retry-After beyond the limit applies to all remaining requests: asking earlier only makes it longer.
            is_pointless = wait > _LONGEST_WAIT or self._clock.monotonic() + wait >= end
            if attempt == _ATTEMPTS or is_pointless:
                return error, is_pointless
            self._sleep(wait)
        raise AssertionError("the last attempt returns")

    def _attempt(self, call: PurgeCall) -> _PurgeError | None:
        try:
            if call.body is None:
                response = self._session.post(call.url, data=b"")
            else:
                response = self._session.post(call.url, json=call.body)
        except BackendUnavailableError as error:
            return _PurgeError(f"not reachable ({error.reason})")
        text = self._error_in(call, response)
        if text is None:
            return None
        if response.status >= 500 or response.status in {408, 429}:
            return _PurgeError(text, wait=self._retry_after(response))
        return _PurgeError(text, permanent=True, affects_all=response.status in {401, 403, 404})

    def _error_in(self, call: PurgeCall, response: HttpResponse) -> str | None:
        try:
            content = json_loads(response.body)
        except DecodeError:
            return f"HTTP {response.status}: not a JSON response"
        message = self._error_of(call, response.status, content)
        # Before truncating, which could leave a part of the token.
        return None if message is None else f"HTTP {response.status}: {self._hide(message)[:250]}"

    def _retry_after(self, response: HttpResponse) -> float | None:
        fields = {name.lower(): value for name, value in response.headers.items()}
        # The date form (RFC 9110, 10.2.3) would need synchronised clocks.
        asked = _whole_number(fields.get("retry-after"))
        if asked is None and self._reset_field is not None and response.status == 429:
            reset = _whole_number(fields.get(self._reset_field))
            asked = None if reset is None else max(1.0, reset - self._clock.time())
        return None if asked is None else min(_LONGEST_ASKED, asked)


class _PurgeError(NamedTuple):
    """The error of one request."""

    text: str
    wait: float | None = None
    """Seconds to wait before a retry, as requested by the service."""
    permanent: bool = False
    affects_all: bool = False
    """Whether the zone or the token is refused, so that the other requests would fail too."""


def _whole_number(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else None

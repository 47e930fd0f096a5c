"""Purges what Cloudflare keeps of a zone, in batches, and says exactly what could not be purged."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.codec import json_loads
from mks_hardening._core.durations import seconds
from mks_hardening._core.http_session import HttpAnswer, HttpSession, check_url
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, DecodeError
from mks_hardening.protocols import Clock

__all__ = ["CDNManager", "PurgeResult"]

_BATCH: Final = 100  # Cloudflare's limit for each call on every plan
_ATTEMPTS: Final = 3
_LONGEST_WAIT: Final = 10.0
_ZONE: Final = re.compile(r"[0-9a-f]{32}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{8,512}")
_TAG: Final = re.compile(
    r"[\x21-\x2b\x2d-\x7e]{1,1024}"
)  # no blanks, and no comma: the header field separates with it
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_PREFIX: Final = re.compile(
    r"(?=.{1,1024}\Z)[A-Za-z0-9.-]+\.[A-Za-z0-9-]+(?:/[\x21\x22\x24-\x3e\x40-\x7e]*)?"
)


class PurgeResult(NamedTuple):
    """What a purge did; true only when all of it was done.

    Attributes:
        ok: whether everything was purged.
        done: the items that are purged (``*`` for everything).
        failed: the items that are not, and can be given again.
        errors: what the service said, one text for each kind of failure.
    """

    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok


class _Batch(NamedTuple):
    items: tuple[str, ...]
    body: dict[str, Any]


class CDNManager:
    """Purges one Cloudflare zone.

    Args:
        zone_id: 32 hexadecimal digits.
        api_token: a token that may do nothing but "Cache Purge" on this zone; never logged or shown.
        timeout: seconds for each call.
        base_url: the API; only tests need another.
        deadline: seconds that one purge may take with all its batches and waits.
        sleep: how to wait between attempts.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
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
                "api_token must be printable ASCII without blanks", parameter="api_token"
            )
        self._url = f"{check_url(base_url, parameter='base_url').rstrip('/')}/zones/{zone_id}/purge_cache"
        self._zone_id = zone_id
        self._deadline = seconds(deadline, parameter="deadline", allow_zero=False)
        self._sleep = sleep
        self._clock = clock
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
        """Purge URLs, tags, prefixes and hosts, or the whole zone; never raises for what the service does.

        Args:
            urls: absolute http(s) URLs.
            tags: names from ``Cache-Tag``.
            prefixes: ``host/path`` without scheme.
            hosts: host names.
            purge_everything: exactly ``True``, and alone.

        Raises:
            ConfigurationError: nothing to purge, or something that cannot be purged; nothing was sent then.
        """
        kinds = {"files": urls, "tags": tags, "prefixes": prefixes, "hosts": hosts}
        batches = _everything(kinds) if purge_everything is True else list(_batches(kinds))
        if not batches:
            raise ConfigurationError("purge_cache needs urls, tags, prefixes, hosts or purge_everything=True")
        return self._purge(batches)

    def close(self) -> None:
        """Give connections back; harmless when called twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CDNManager({self._zone_id!r})"

    def _purge(self, batches: list[_Batch]) -> PurgeResult:
        end = self._clock.monotonic() + self._deadline
        done: list[str] = []
        failed: list[str] = []
        errors: dict[str, None] = {}
        hopeless = False
        for batch in batches:
            error, hopeless = (None, True) if hopeless else self._send(batch.body, end)
            if error is None and not hopeless:
                done += batch.items
                continue
            failed += batch.items
            if error:
                errors[error] = None
        return PurgeResult(not failed, tuple(done), tuple(failed), tuple(errors))

    def _send(self, body: dict[str, Any], end: float) -> tuple[str | None, bool]:
        """What went wrong with a batch (None: nothing), and whether the others need not be tried."""
        for attempt in range(1, _ATTEMPTS + 1):
            error, wait, hopeless = self._attempt(body, attempt)
            if error is None or hopeless or wait is None:
                return error, hopeless
            if attempt == _ATTEMPTS or wait > _LONGEST_WAIT or self._clock.monotonic() + wait >= end:
                return error, self._clock.monotonic() + wait >= end
            self._sleep(wait)
        raise AssertionError("the last attempt returns")

    def _attempt(self, body: dict[str, Any], attempt: int) -> tuple[str | None, float | None, bool]:
        """Error, seconds until another attempt makes sense (None: never), whether the zone or token is refused."""
        try:
            answer = self._session.post(self._url, json=body)
        except BackendUnavailableError as error:
            return f"not reachable ({error.reason})", 0.5 * 2**attempt, False
        error_text = _error_of(answer)
        if error_text is None:
            return None, None, False
        if answer.status == 429:
            return error_text, _retry_after(answer, otherwise=0.5 * 2**attempt), False
        if answer.status >= 500 or answer.status == 408:
            return error_text, 0.5 * 2**attempt, False
        return error_text, None, answer.status in {401, 403, 404}


def _everything(kinds: dict[str, Iterable[str] | None]) -> list[_Batch]:
    if any(items is not None for items in kinds.values()):
        raise ConfigurationError("purge_everything must be alone", parameter="purge_everything")
    return [_Batch(("*",), {"purge_everything": True})]


def _batches(kinds: dict[str, Iterable[str] | None]) -> Iterator[_Batch]:
    """All batches of all kinds; everything is checked before the first is sent."""
    for kind, given in kinds.items():
        if isinstance(given, (str, bytes)):
            raise ConfigurationError(f"{kind} must be several texts, not one", parameter=kind)
        items = tuple(dict.fromkeys(given or ()))
        for item in items:
            if not isinstance(item, str) or not _CHECKS[kind](item):
                raise ConfigurationError(f"{kind} holds something that cannot be purged", parameter=kind)
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            yield _Batch(part, {kind: list(part)})


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.username is None
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


def _error_of(answer: HttpAnswer) -> str | None:
    """None when the body says that it worked; the status alone does not."""
    try:
        content = json_loads(answer.body)
    except DecodeError:
        return f"HTTP {answer.status}: not a JSON answer"
    match content:
        case {"success": True} if answer.status == 200:
            return None
        case {"errors": [{"code": code, "message": str(message)}, *_]}:
            return f"HTTP {answer.status}: {message[:200]} ({code})"
        case _:
            return f"HTTP {answer.status}: not successful"


def _retry_after(answer: HttpAnswer, *, otherwise: float) -> float:
    value = next((text for name, text in answer.headers.items() if name.lower() == "retry-after"), "")
    return float(value) if value.isascii() and value.isdecimal() else otherwise

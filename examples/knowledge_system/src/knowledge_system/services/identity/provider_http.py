"""Requests to an identity provider: one address, no redirects, little data, little time."""

from __future__ import annotations

import json
import time
import urllib.request
from http.client import HTTPException
from typing import IO, Any, Final
from urllib.error import HTTPError

_TIMEOUT: Final = 5.0
_DEADLINE: Final = 10.0
_LARGEST: Final = 262_144
_CHUNK: Final = 16_384


class ProviderError(Exception):
    """The provider did not respond as the standard requires; ``reason`` is for the log and holds no token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_response: object, **_options: object) -> None:
        """Follow none: a redirect could lead into the company's network. It becomes an ``HTTPError``."""


def fetch_json(
    url: str, *, form: bytes | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object at an address, or the response to a form that is sent there.

    Args:
        url: address from the settings or from discovery, already checked.
        form: body of a POST request; ``None`` for GET.
        headers: further header fields.

    Raises:
        ProviderError: no response in time, another status than 200, too much data, or no JSON object.
    """
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked with the settings or discovery
        url, data=form, headers={"Accept": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT) as response:
            found = json.loads(_read(response))
    except HTTPError as error:
        error.close()
        raise ProviderError(f"status {error.code}") from None
    except (OSError, HTTPException) as error:
        raise ProviderError(f"no response ({type(error).__name__})") from None
    except (ValueError, RecursionError):  # a number or a nesting that no provider sends is no JSON either
        raise ProviderError("no JSON") from None
    if not isinstance(found, dict):
        raise ProviderError("no JSON object")
    return found


def _read(response: IO[bytes]) -> bytes:
    """Read a response; the time-out of the socket alone would allow one byte a second without end."""
    deadline, body = time.monotonic() + _DEADLINE, b""
    while chunk := response.read1(_CHUNK):  # type: ignore[attr-defined]  # an HTTPResponse has it
        body += chunk
        if len(body) > _LARGEST or time.monotonic() > deadline:
            raise ProviderError("too much data or too slow")
    return body

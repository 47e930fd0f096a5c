"""Redirect to the sign-in page after the end of a session."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from mks_hardening._core.web.paths import is_plain_path
from mks_hardening.exceptions import ConfigurationError

__all__ = ["SignInPage", "return_path"]

_URL: Final = re.compile(r"(?:https://[^\s\\/@{}]+)?/(?![/\\{])[^\x00-\x20\\\x7f-\uffff]*").fullmatch
_LONGEST_WAY_BACK: Final = 1024


class SignInPage:
    """URL of the sign-in page, with placeholders.

    Args:
        url: a path or an https URL. ``{reason}`` is replaced by why the session has ended, ``{next}`` by path and
            query of the requested page.

    Raises:
        ConfigurationError: the URL is anything else.
    """

    __slots__ = ("_path", "_url")

    def __init__(self, url: str) -> None:
        if not isinstance(url, str) or _URL(url) is None:
            raise ConfigurationError(
                "sign_in_url must be a path that begins with one slash, or an https URL",
                parameter="sign_in_url",
            )
        self._url = url
        path = url.partition("?")[0].partition("#")[0]
        self._path = path if path.startswith("/") else None

    def is_at(self, script_name: str, path: str) -> bool:
        """Return whether this is the path of the sign-in page, in the application or on the host."""
        return self._path is not None and self._path in (path, script_name + path)

    def location(self, reason: str, asked_for: str) -> str:
        """Return the URL for one refusal; ``asked_for`` is a result of ``return_path``."""
        return self._url.replace("{reason}", reason).replace("{next}", asked_for)


def return_path(method: str, path: str, query: str) -> str:
    """Return the page to go back to after sign-in, as the value of a query parameter.

    A path of this origin with its query; or ``/`` if the request cannot be repeated by following a link, or the
    path could be read as another host.
    """
    if method != "GET" or not path.startswith("/") or not is_plain_path(path):
        return "%2F"
    there = quote(path.encode("latin-1"), safe="/") + (f"?{query}" if query else "")
    return quote(there.encode("latin-1", "replace"), safe="") if len(there) <= _LONGEST_WAY_BACK else "%2F"

"""Where people are sent whose session is over."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from mks_hardening._core.web.paths import is_plain_path
from mks_hardening.exceptions import ConfigurationError

__all__ = ["SignInPage", "way_back"]

_URL: Final = re.compile(r"(?:https://[^\s\\/@{}]+)?/(?![/\\{])[^\x00-\x20\\\x7f-\uffff]*").fullmatch
_LONGEST_WAY_BACK: Final = 1024


class SignInPage:
    """The address of the sign-in page, with places to fill in.

    Args:
        url: a path or an https URL; ``{reason}`` in it becomes why the session is over, ``{next}`` the path and
            query of the page that was asked for.

    Raises:
        ConfigurationError: anything else.
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
        """Whether that is its path, in the application or on the host."""
        return self._path is not None and self._path in (path, script_name + path)

    def location(self, reason: str, asked_for: str) -> str:
        """The address for one refusal; ``asked_for`` as ``way_back`` gives it."""
        return self._url.replace("{reason}", reason).replace("{next}", asked_for)


def way_back(method: str, path: str, query: str) -> str:
    """What to come back to after signing in, as the value of a query parameter.

    A path of this origin and its query, or ``/`` where the request cannot be made again by following a link, or
    where a reader could take the path for another host.
    """
    if method != "GET" or not path.startswith("/") or not is_plain_path(path):
        return "%2F"
    there = quote(path.encode("latin-1"), safe="/") + (f"?{query}" if query else "")
    return quote(there.encode("latin-1", "replace"), safe="") if len(there) <= _LONGEST_WAY_BACK else "%2F"
